/** A picture in the grid: its small copy with the objects over it, its name, and what was found. Makes elements, keeps none. */
import { isWanted } from "./address.js";
import { reasonOf, smallUrl } from "./api.js";
import { make } from "./elements.js";
import { lowestScore, percent, summaryOf } from "./found.js";
import { t } from "./i18n.js";
import { lettersOn } from "./viewer/colors.js";
import { svg } from "./viewer/elements.js";
import { pathData, shapeOf } from "./viewer/geometry.js";

const MAX_DRAWN = 150; // objects; more can't be told apart in a small copy

/** An element in place of a picture that is not known yet. */
export function emptyCell() {
  return make("button", { type: "button", class: "cell is-waiting", tabindex: -1, "aria-label": t("grid.loading") }, make("span", { class: "shot" }));
}

/**
 * The element of a picture.
 * @param {any} picture as the server gives it
 * @param {{version: string, filters: import("./address.js").State, colorOf: (label: string) => string, fail: (error: Error) => void}} options
 */
export function cellOf(picture, { version, filters, colorOf, fail }) {
  const shot = make("span", { class: "shot" });
  const score = lowestScore(picture, filters);
  const found = make("span", { class: "found", dir: "auto", text: summaryOf(picture) });
  const top = make("span", { class: "name-row" }, nameElement(picture.name), score === null ? null : make("span", { class: "lowest", text: percent(score) }));
  const cell = make("button", { type: "button", class: "cell", tabindex: -1, "data-testid": "cell" }, shot, top, found);
  if (picture.problem) {
    cell.classList.add("is-problem");
    shot.append(make("span", { class: "reason", text: t("grid.unreadable") }));
    return cell;
  }
  const image = make("img", { src: smallUrl(version, picture), alt: "", decoding: "async", draggable: "false" });
  image.addEventListener("error", () => {
    cell.classList.add("is-problem");
    shot.replaceChildren(make("span", { class: "reason", text: t("grid.unreadable") }));
    reasonOf(image.src).then((reason) => (cell.title = reason), fail);
  });
  shot.append(image, drawingOf(picture, filters, colorOf));
  return cell;
}

/** The end of a name is what tells pictures of one folder apart: the beginning is cut. */
function nameElement(name) {
  return make("span", { class: "name", title: name }, make("bdi", { text: name }));
}

/** The outlines of the objects that the filters are about. */
function drawingOf({ size: [width, height], objects }, filters, colorOf) {
  const shapes = objects.filter((object) => isWanted(object, filters)).slice(0, MAX_DRAWN);
  const paths = shapes.flatMap((object) => {
    const shape = shapeOf(object);
    if (!shape) return [];
    const [d, color] = [pathData(shape.rings), colorOf(object.label)];
    return [svg("path", { class: "rim", d, stroke: lettersOn(color) }), svg("path", { class: "line", d, stroke: color })];
  });
  return svg("svg", { class: "shapes", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...paths);
}
