/**
 * What keys do on the view: zoom, move, go through the objects and choose them, begin and change a region.
 *
 * In: keyboard and focus events of the view's element. Out: calls of a target. Knows nothing of what is shown.
 */

const ZOOMS = { "+": "zoomIn", "=": "zoomIn", "-": "zoomOut", _: "zoomOut", 0: "fit" };
const PAN_STEP = 48; // pixels of the view
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const TURNS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

export class Keys {
  isSpaceHeld = false; // a drag then moves the picture, also where it would draw a region
  #view;
  #target;
  #overlay;
  #region;

  /**
   * @param {HTMLElement} view
   * @param {import("./overlay.js").Overlay} overlay
   * @param {import("./region.js").Region} region
   * @param {{isEmpty: () => boolean, zoomIn: () => void, zoomOut: () => void, fit: () => void, pan: (dx: number, dy: number) => void,
   *   beginRegion: () => void, cancelDrag: () => boolean, select: (entry: object) => void}} target
   */
  constructor(view, overlay, region, target) {
    this.#view = view;
    this.#overlay = overlay;
    this.#region = region;
    this.#target = target;
    view.addEventListener("keydown", (event) => this.#down(event));
    view.addEventListener("keyup", (event) => this.#up(event));
    view.addEventListener("focusout", (event) => this.#left(event));
  }

  #down(event) {
    if (this.#target.isEmpty() || event.ctrlKey || event.metaKey || event.altKey) return;
    const entry = this.#overlay.entryOf(event.target);
    const isDone =
      this.#zoom(event) ||
      this.#escape(event, entry) ||
      this.#holdSpace(event, entry) ||
      (event.target === this.#region.frame ? this.#onRegion(event) : entry ? this.#onObject(event, entry) : this.#onView(event));
    if (isDone) event.preventDefault();
  }

  #up(event) {
    if (event.key === " ") this.isSpaceHeld = false;
    this.#region.keyEnded(event);
  }

  #left({ relatedTarget }) {
    if (!this.#view.contains(relatedTarget)) this.isSpaceHeld = false;
  }

  #zoom({ key }) {
    if (key in ZOOMS) this.#target[ZOOMS[key]]();
    return key in ZOOMS;
  }

  #escape({ key }, entry) {
    if (key !== "Escape") return false;
    if (this.#target.cancelDrag()) return true;
    if (entry) this.#focusView();
    return entry !== null;
  }

  #holdSpace({ key }, entry) {
    this.isSpaceHeld = key === " " && !entry;
    return this.isSpaceHeld;
  }

  #onRegion(event) {
    const isDone = this.#region.key(event);
    if (!this.#region.box) this.#focusView();
    return isDone;
  }

  #onObject({ key }, entry) {
    const entries = this.#overlay.entries;
    const ends = { Home: 0, End: entries.length - 1 };
    const next = key in ends ? ends[key] : key in TURNS ? entries.indexOf(entry) + TURNS[key] : null;
    if (next !== null) entries.at(next % entries.length).element.focus({ preventScroll: true });
    else if (key === "Enter" || key === " ") this.#target.select(entry);
    else return false;
    return true;
  }

  #onView({ key }) {
    if (key in ARROWS) this.#target.pan(...ARROWS[key].map((sign) => sign * PAN_STEP));
    else if (key === "Enter" && this.#region.isActive && !this.#region.box) this.#target.beginRegion();
    else return false;
    return true;
  }

  #focusView() {
    this.#view.focus({ preventScroll: true });
  }
}
