/**
 * Which part of the picture is in the view, and how large.
 *
 * In: sizes of view and picture, zooms and moves. Out: scale and offset, points of one in the other. Knows nothing of elements.
 */

import { clamped } from "./geometry.js";

const MARGIN = 10; // pixels of the view on each side of a picture that is shown whole
const MAX_FIT_SCALE = 8; // small pictures are enlarged up to this
const MAX_SCALE = 64;

export class Camera {
  view = { width: 0, height: 0 };
  picture = { width: 1, height: 1 };
  scale = 1; // pixels of the view per pixel of the picture
  x = 0; // where the picture's upper left corner is, in pixels of the view
  y = 0;
  isFitted = true;

  /** The scale at which the whole picture is seen. */
  get fitScale() {
    const { view, picture } = this;
    const room = (length) => Math.max(length - 2 * MARGIN, 1);
    return Math.min(room(view.width) / picture.width, room(view.height) / picture.height, MAX_FIT_SCALE);
  }

  /** Show the whole picture in the middle. */
  fit() {
    this.scale = this.fitScale;
    this.x = Math.round((this.view.width - this.picture.width * this.scale) / 2);
    this.y = Math.round((this.view.height - this.picture.height * this.scale) / 2);
    this.isFitted = true;
  }

  /** Show another picture, whole. */
  show(picture) {
    this.picture = { width: picture.width, height: picture.height };
    this.fit();
  }

  /** Take on another size of the view; what was in its middle stays there. */
  resize(view) {
    const middle = this.toPicture([this.view.width / 2, this.view.height / 2]);
    this.view = view;
    if (this.isFitted) return this.fit();
    this.scale = clamped(this.scale, this.fitScale, MAX_SCALE);
    this.x = view.width / 2 - middle[0] * this.scale;
    this.y = view.height / 2 - middle[1] * this.scale;
    this.#keepInView();
  }

  /**
   * Zoom; the point of the picture at ``point`` stays where it is.
   *
   * @param {number} factor above 1 enlarges.
   * @param {number[]} point x and y in the view; the middle if left out.
   */
  zoom(factor, [x, y] = [this.view.width / 2, this.view.height / 2]) {
    const scale = clamped(this.scale * factor, this.fitScale, Math.max(MAX_SCALE, this.fitScale));
    if (scale <= this.fitScale) return this.fit();
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.isFitted = false;
    this.#keepInView();
  }

  /** Move the picture by pixels of the view. A picture that is seen whole stays. */
  pan(dx, dy) {
    if (this.isFitted) return;
    this.x += dx;
    this.y += dy;
    this.#keepInView();
  }

  /** Bring a box of the picture into the view, if it isn't there. */
  reveal([left, top, right, bottom]) {
    const [x1, y1] = this.toView([left, top]);
    const [x2, y2] = this.toView([right, bottom]);
    const isSeen = x2 > 0 && y2 > 0 && x1 < this.view.width && y1 < this.view.height;
    if (!isSeen) this.pan(this.view.width / 2 - (x1 + x2) / 2, this.view.height / 2 - (y1 + y2) / 2);
  }

  toPicture([x, y]) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  toView([x, y]) {
    return [this.x + x * this.scale, this.y + y * this.scale];
  }

  /** A box of the picture in pixels of the view. */
  boxToView([left, top, right, bottom]) {
    return [...this.toView([left, top]), ...this.toView([right, bottom])];
  }

  /** The middle of the view stays on the picture, so that it can't be lost; no zoom at a point of the picture is disturbed by that. */
  #keepInView() {
    const { view, picture, scale } = this;
    this.x = clamped(this.x, view.width / 2 - picture.width * scale, view.width / 2);
    this.y = clamped(this.y, view.height / 2 - picture.height * scale, view.height / 2);
  }
}
