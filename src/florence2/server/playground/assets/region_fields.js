/** The region of a task as four numbers, kept in step with what is drawn on the picture: for keyboards and screen readers. */
import { byId } from "./elements.js";

const CORNERS = ["x1", "y1", "x2", "y2"];

/** Turns drawing on and off, and knows the region. */
export class RegionFields {
  #viewer;
  #isOn = false;

  /** @param {import("./viewer.js").Viewer} viewer */
  constructor(viewer) {
    this.#viewer = viewer;
    viewer.addEventListener("region", (event) => this.#write(event.detail.region));
    for (const corner of CORNERS) byId(corner).addEventListener("input", () => this.#draw());
    byId("region-clear").addEventListener("click", () => this.set(null));
  }

  /**
   * Show or hide the fields, and let the person draw or not.
   * @param {boolean} isOn
   */
  setOn(isOn) {
    byId("region-row").hidden = !isOn;
    if (isOn === this.#isOn) return;
    this.#isOn = isOn;
    if (isOn) this.#viewer.startRegion(this.value);
    else this.#viewer.endRegion();
  }

  /**
   * Begin anew for another picture, or with a region from elsewhere.
   * @param {number[]|null} region
   */
  set(region) {
    this.#write(region);
    if (this.#isOn) this.#viewer.startRegion(region);
  }

  /**
   * The region in whole pixels, or null where the fields don't hold one.
   * @returns {number[]|null}
   */
  get value() {
    const texts = CORNERS.map((corner) => byId(corner).value.trim());
    if (texts.some((text) => text === "")) return null;
    const [x1, y1, x2, y2] = texts.map((text) => Math.round(Number(text)));
    return x1 < x2 && y1 < y2 && x1 >= 0 && y1 >= 0 ? [x1, y1, x2, y2] : null;
  }

  /** Whether anything was typed or drawn. */
  get isEmpty() {
    return CORNERS.every((corner) => byId(corner).value.trim() === "");
  }

  /**
   * The largest numbers that fit the picture.
   * @param {number} width
   * @param {number} height
   */
  setLimits(width, height) {
    CORNERS.forEach((corner, index) => (byId(corner).max = String(index % 2 ? height : width)));
  }

  #write(region) {
    CORNERS.forEach((corner, index) => {
      if (document.activeElement !== byId(corner) || region === null) byId(corner).value = region === null ? "" : String(region[index]);
    });
  }

  #draw() {
    const [width, height] = [Number(byId("x2").max), Number(byId("y2").max)];
    const region = this.value;
    if (region !== null && region[2] <= width && region[3] <= height) this.#viewer.startRegion(region);
  }
}
