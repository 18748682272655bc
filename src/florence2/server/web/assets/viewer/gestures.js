/**
 * What fingers, pens, mice and wheels do on the view: taps, drags, pinches, zooms, hovering.
 *
 * In: pointer and wheel events of an element. Out: calls of a target with points in pixels of that element. Knows nothing of what is shown.
 */

const SLOP = { mouse: 3, pen: 4, touch: 8 }; // pixels that a tap may move
const DOUBLE_TAP_MS = 350;
const DOUBLE_TAP_DISTANCE = 24;
const WHEEL_SPEED = 0.0018; // of the logarithm of the scale, per pixel of the wheel
const PINCH_SPEED = 0.01; // the same for a pinch on a trackpad, which browsers report as a wheel with the control key
const LINE_HEIGHT = 16; // pixels, for wheels that report lines
const MAX_WHEEL_STEP = 240;

/**
 * @typedef {object} Drag what follows one pointer until it is lifted
 * @property {(point: number[]) => void} move
 * @property {() => void} end
 * @property {() => void} cancel
 */

export class Gestures {
  #view;
  #target;
  #pointers = new Map();
  #start = null; // where and how the only pointer went down, until it is a drag or more come
  #drag = null;
  #lastTap = null;

  /**
   * @param {HTMLElement} view
   * @param {{isEmpty: () => boolean, beginDrag: (point: number[], event: PointerEvent) => Drag, beginPan: (point: number[]) => Drag,
   *   fit: () => void, zoom: (factor: number, point: number[]) => void, pan: (dx: number, dy: number) => void,
   *   tap: (point: number[], event: PointerEvent) => void, hover: (point: number[]|null, event: PointerEvent) => void}} target
   */
  constructor(view, target) {
    this.#view = view;
    this.#target = target;
    view.addEventListener("pointerdown", (event) => this.#down(event));
    view.addEventListener("pointermove", (event) => this.#move(event));
    view.addEventListener("pointerup", (event) => this.#up(event));
    view.addEventListener("pointercancel", (event) => this.#cancelled(event));
    view.addEventListener("pointerleave", (event) => this.#left(event));
    view.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    view.addEventListener("mousedown", (event) => event.button === 1 && event.preventDefault());
  }

  /** End a drag as if it had not begun. */
  cancelDrag() {
    const isDragging = this.#drag !== null;
    this.#drag?.cancel();
    this.#drag = this.#start = null;
    return isDragging;
  }

  /** A finger that is lifted leaves too, but what it touched stays emphasized. */
  #left(event) {
    if (!this.#pointers.size && event.pointerType !== "touch") this.#target.hover(null, event);
  }

  #pointOf(event) {
    const { left, top } = this.#view.getBoundingClientRect();
    return [event.clientX - left - this.#view.clientLeft, event.clientY - top - this.#view.clientTop];
  }

  #down(event) {
    if (event.button > 1 || this.#pointers.size === 2) return;
    this.#view.setPointerCapture?.(event.pointerId);
    this.#pointers.set(event.pointerId, this.#pointOf(event));
    if (this.#pointers.size === 2) this.cancelDrag();
    else this.#start = { point: this.#pointOf(event), event };
  }

  #move(event) {
    const point = this.#pointOf(event);
    if (!this.#pointers.has(event.pointerId)) {
      if (this.#pointers.size === 0) this.#target.hover(point, event);
      return;
    }
    if (this.#pointers.size === 2) this.#pinch(event.pointerId, point);
    this.#pointers.set(event.pointerId, point);
    if (this.#start && distance(point, this.#start.point) >= SLOP[event.pointerType || "mouse"]) this.#beginDrag();
    this.#drag?.move(point);
  }

  #beginDrag() {
    const { point, event } = this.#start;
    this.#drag = event.button === 1 ? this.#target.beginPan(point) : this.#target.beginDrag(point, event);
    this.#start = null;
  }

  #pinch(pointerId, point) {
    const other = [...this.#pointers].find(([id]) => id !== pointerId)[1];
    const before = this.#pointers.get(pointerId);
    const [middle, middleBefore] = [between(point, other), between(before, other)];
    this.#target.zoom(distance(point, other) / Math.max(distance(before, other), 1), middleBefore);
    this.#target.pan(middle[0] - middleBefore[0], middle[1] - middleBefore[1]);
  }

  #up(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    const [drag, start] = [this.#drag, this.#start];
    this.#drag = this.#start = null;
    if (this.#pointers.size === 1) this.#drag = this.#target.beginPan([...this.#pointers.values()][0]);
    else if (drag) drag.end();
    else if (start?.event.button === 0) this.#tap(start.point, event);
  }

  #tap(point, event) {
    const last = this.#lastTap;
    const isDouble = last && event.timeStamp - last.time < DOUBLE_TAP_MS && distance(point, last.point) < DOUBLE_TAP_DISTANCE;
    this.#lastTap = isDouble ? null : { point, time: event.timeStamp };
    if (isDouble) this.#target.fit();
    else this.#target.tap(point, event);
  }

  #cancelled(event) {
    if (this.#pointers.delete(event.pointerId)) this.cancelDrag();
  }

  #wheel(event) {
    if (this.#target.isEmpty()) return;
    event.preventDefault();
    const unit = [1, LINE_HEIGHT, this.#view.clientHeight][event.deltaMode];
    const delta = Math.max(-MAX_WHEEL_STEP, Math.min(MAX_WHEEL_STEP, event.deltaY * unit));
    this.#target.zoom(Math.exp(-delta * (event.ctrlKey ? PINCH_SPEED : WHEEL_SPEED)), this.#pointOf(event));
  }
}

function distance([x1, y1], [x2, y2]) {
  return Math.hypot(x2 - x1, y2 - y1);
}

function between([x1, y1], [x2, y2]) {
  return [(x1 + x2) / 2, (y1 + y2) / 2];
}
