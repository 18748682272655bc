/** Files of the answers about the current picture: their JSON, the drawing, COCO. */
import { announce, byId } from "./elements.js";
import { download, toCoco } from "./export.js";
import { t } from "./i18n.js";

/**
 * Make the download buttons work.
 * @param {import("./session.js").Session} session
 * @param {import("./viewer.js").Viewer} viewer
 * @param {import("./results.js").Results} results
 */
export function offerDownloads(session, viewer, results) {
  byId("download-json").addEventListener("click", () => {
    download(asJson(answersOf(session.current)), fileName(session.current, "json"));
  });
  byId("download-coco").addEventListener("click", () => {
    const { name, width, height } = session.current;
    download(asJson(toCoco({ name, width, height, layers: results.shownLayers })), fileName(session.current, "coco.json"));
  });
  byId("download-png").addEventListener("click", async () => {
    const picture = session.current;
    const blob = await viewer.toPng();
    download(blob, fileName(picture, "png"));
    const [width, height] = [picture.width, picture.height].map((side) => Math.round(side * blob.scale));
    if (blob.scale < 1) announce(t("answers.scaled_png", { width, height }));
  });
}

/** The server's answer, or a list of them where there are several layers. */
function answersOf(picture) {
  const answers = picture.layers.filter((layer) => layer.answer).map((layer) => layer.answer).reverse();
  return answers.length === 1 ? answers[0] : answers;
}

function asJson(value) {
  return new Blob([JSON.stringify(value, null, 2), "\n"], { type: "application/json" });
}

function fileName({ name }, ending) {
  return `${name.replace(/\.\w{1,5}$/, "").replace(/[\\/:*?"<>|]/g, "_") || "picture"}.florence2.${ending}`;
}
