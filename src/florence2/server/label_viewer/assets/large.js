/**
 * One picture large: with its objects over it, what was found beside it, and the way to the next.
 *
 * In: pictures by position, filters. Out: "moved" with the name of the picture, "closed", "failed" with an error that is not about one picture. The viewer draws; keys work wherever the focus is.
 */
import { isAboutObjects, isWanted } from "./address.js";
import { largeUrl, Outdated, reasonOf } from "./api.js";
import { announce, byId } from "./elements.js";
import { factsOf, objectRows, textsOf } from "./facts.js";
import { shownObject, whole } from "./found.js";
import { languages, messages, t } from "./i18n.js";
import { Viewer } from "./viewer.js";

const LAYER = "found";
const BUSY_MS = 200; // until a picture that is loaded is dimmed
const STEPS = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, n: 1, j: 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1, p: -1, k: -1 };
const ZOOMS = { "+": "zoomIn", "=": "zoomIn", "-": "zoomOut", 0: "fit" };

export class Large extends EventTarget {
  position = null;
  #pictures;
  #viewer = new Viewer(byId("viewer"), { messages: messages("viewer.") });
  #seedColors;
  #filters = null;
  #picture = null;
  #shown = []; // indices of the objects that are drawn
  #numLoads = 0;

  /**
   * @param {import("./pictures.js").Pictures} pictures
   * @param {(viewer: Viewer) => void} seedColors has the classes take their colours in order
   */
  constructor(pictures, seedColors) {
    super();
    this.#pictures = pictures;
    this.#seedColors = seedColors;
    byId("before").addEventListener("click", () => this.#step(-1));
    byId("after").addEventListener("click", () => this.#step(1));
    byId("close").addEventListener("click", () => byId("large").close());
    byId("large").addEventListener("close", () => this.#closed());
    byId("large").addEventListener("keydown", (event) => this.#key(event), { capture: true });
    for (const id of ["every", "bare"]) byId(id).addEventListener("change", () => this.#draw());
    this.#viewer.addEventListener("hover", ({ detail }) => this.#mark(detail.index ?? null));
    languages.addEventListener("change", () => this.#translate());
  }

  get isOpen() {
    return byId("large").open;
  }

  /** Show the picture at a position. */
  async open(position, filters) {
    this.#filters = filters;
    if (!this.isOpen) {
      byId("large").showModal();
      byId("large-name").focus();
    }
    await this.#show(position).catch((error) => this.#failed(error));
  }

  close() {
    if (this.isOpen) byId("large").close();
  }

  async #show(position) {
    const load = ++this.#numLoads;
    this.position = position;
    const picture = await this.#pictures.get(position);
    if (load !== this.#numLoads || !picture) return;
    this.#picture = picture;
    this.#describe();
    this.dispatchEvent(new CustomEvent("moved", { detail: { name: picture.name } }));
    announce(`${t("large.of", this.#place())}: ${picture.name}`);
    const timer = setTimeout(() => byId("viewer").classList.add("is-busy"), BUSY_MS);
    const problem = await this.#load(picture, load).finally(() => clearTimeout(timer));
    if (load !== this.#numLoads) return;
    this.#say(problem);
    this.#draw();
    this.#readAhead(position);
  }

  /** Load the picture into the viewer; the reason where it can't be seen, or "". */
  async #load(picture, load) {
    if (!picture.problem) {
      const [width, height] = picture.size;
      const url = largeUrl(this.#pictures.version, picture);
      try {
        await this.#viewer.setImage({ url, name: picture.name, width, height });
        return "";
      } catch {
        if (load !== this.#numLoads) return "";
        this.#viewer.clear();
        return (await reasonOf(url)) || t("grid.unreadable");
      }
    }
    this.#viewer.clear();
    return picture.problem;
  }

  #readAhead(position) {
    for (const next of [position + 1, position - 1]) {
      const picture = this.#pictures.at(next);
      if (picture && !picture.problem) new Image().src = largeUrl(this.#pictures.version, picture);
    }
  }

  #place() {
    return { position: whole(this.position + 1), total: whole(this.#pictures.total) };
  }

  #describe() {
    byId("large-name").replaceChildren(this.#picture.name);
    byId("large-count").textContent = t("large.of", this.#place());
    byId("before").disabled = this.position === 0;
    byId("after").disabled = this.position >= this.#pictures.total - 1;
    byId("texts").replaceChildren(...textsOf(this.#picture));
    byId("facts").replaceChildren(...factsOf(this.#picture));
    byId("every-row").hidden = !isAboutObjects(this.#filters) || this.#picture.objects.every((object) => isWanted(object, this.#filters));
    byId("bare-row").hidden = this.#picture.objects.length === 0;
  }

  /** Draw the objects, and list them. */
  #draw() {
    const { objects } = this.#picture;
    const isShown = (object) => (!byId("every-row").hidden && byId("every").checked) || isWanted(object, this.#filters);
    this.#shown = objects.map((_, index) => index).filter((index) => isShown(objects[index]));
    const drawn = byId("bare").checked ? [] : this.#shown.map((index) => shownObject(objects[index]));
    this.#seedColors(this.#viewer);
    this.#viewer.setLayers([{ id: LAYER, title: t("viewer.objects"), visible: true, objects: this.#picture.problem ? [] : drawn }]);
    const point = (place) => !byId("bare").checked && this.#viewer.highlight(place === null ? null : LAYER, place);
    byId("objects").replaceChildren(...objectRows(this.#shown.map((index) => objects[index]), (label) => this.#viewer.colorOf(label), point));
  }

  /** Emphasize the row of an object that is pointed at in the picture. */
  #mark(place) {
    for (const [index, row] of [...byId("objects").children].entries()) row.classList.toggle("is-pointed", index === place);
  }

  #step(step) {
    const next = this.position + step;
    if (next >= 0 && next < this.#pictures.total) this.#show(next).catch((error) => this.#failed(error));
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key in ZOOMS) this.#viewer[ZOOMS[key]]();
    else if (key === "h" && !byId("bare-row").hidden) byId("bare").click();
    else if (key in STEPS && !(key.length > 1 && this.#needsArrows(event.target))) this.#step(STEPS[key]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** Whether arrow and page keys mean something else there: a picture that is zoomed in, an object, what can be scrolled. */
  #needsArrows(target) {
    const view = target.closest(".viewer-surface");
    if (view) return view.classList.contains("is-zoomed") || target.closest(".viewer-object") !== null;
    return target.closest("#about") !== null && target.closest("#about").scrollHeight > target.closest("#about").clientHeight;
  }

  #failed(error) {
    if (error instanceof Outdated) this.dispatchEvent(new CustomEvent("failed", { detail: { error } }));
    else if (error.name !== "AbortError") this.#say(t("message.ended"));
  }

  /** Say what went wrong in place of the picture; "" for nothing. */
  #say(problem) {
    byId("viewer").classList.remove("is-busy");
    byId("large-problem").hidden = !problem;
    byId("large-problem").textContent = problem;
  }

  #closed() {
    const { position } = this;
    this.#numLoads++;
    this.position = null;
    this.#viewer.clear();
    byId("viewer").classList.remove("is-busy");
    this.dispatchEvent(new CustomEvent("closed", { detail: { position } }));
  }

  #translate() {
    this.#viewer.setMessages(messages("viewer."));
    if (!this.isOpen || !this.#picture) return;
    this.#describe();
    this.#draw();
  }
}
