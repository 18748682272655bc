/**
 * The region that a user draws, moves and resizes: in pixels of the picture, with handles in pixels of the view.
 *
 * In: points of the view, keys. Out: elements, and each change through ``onChange``. Knows nothing of tasks and requests.
 */

import { setAttributes, svg } from "./elements.js";
import { cornersOf, pathData, regionWithin } from "./geometry.js";

// Handles by the sides that they move: -1 the left or upper one, 1 the right or lower one, 0 neither.
const HANDLES = [[-1, -1], [0, -1], [1, -1], [1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0]];
const HANDLE_SIZE = 11; // pixels of the view
const REACH = { mouse: 12, pen: 14, touch: 22 }; // pixels around a handle's middle that belong to it
const ROOM = 52; // pixels of the view that the handles leave free in the middle, however small the region is
const CURSORS = { "-1,-1": "nwse-resize", "1,1": "nwse-resize", "1,-1": "nesw-resize", "-1,1": "nesw-resize" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MAX_KEY_STEP = 16; // pixels of the view, while a key is held

export class Region {
  isActive = false;
  box = null;
  #camera;
  #onChange;
  #numRepeats = 0;

  /**
   * @param {import("./camera.js").Camera} camera
   * @param {(isFinal: boolean) => void} onChange called after each change; final means that the user has let go.
   */
  constructor(camera, onChange) {
    this.#camera = camera;
    this.#onChange = onChange;
    this.handles = HANDLES.map(() => svg("rect", { class: "viewer-handle", width: HANDLE_SIZE, height: HANDLE_SIZE, rx: 2 }));
    this.shade = svg("path", { class: "viewer-shade", "fill-rule": "evenodd" });
    this.outlines = ["viewer-region-rim", "viewer-region-line"].map((name) => svg("path", { class: name, fill: "none" }));
    this.frame = svg("g", { class: "viewer-region", role: "application", tabindex: 0 }, ...this.outlines, ...this.handles);
    this.shade.classList.add("is-hidden");
    this.frame.classList.add("is-hidden");
  }

  /** Let the user draw, or change ``box`` if there is one. */
  start(box) {
    this.isActive = true;
    this.box = box ? regionWithin(box, this.#camera.picture) : null;
  }

  end() {
    this.isActive = false;
    this.box = null;
  }

  /** The cursor at a point of the view. */
  cursorAt(point) {
    const sides = this.#sidesAt(point, "mouse");
    if (!sides) return "crosshair";
    if (sides[0] && sides[1]) return CURSORS[sides];
    return sides[0] ? "ew-resize" : sides[1] ? "ns-resize" : "move";
  }

  /** Whether the region or a handle is at a point of the view. */
  isAt(point, pointerType) {
    return this.#sidesAt(point, pointerType) !== null;
  }

  /** A drag that resizes or moves the region, or draws another, by where it starts. */
  beginDrag(start, pointerType) {
    const before = this.box;
    const sides = this.#sidesAt(start, pointerType);
    const from = this.#camera.toPicture(start); // the picture may be zoomed while a region is drawn
    const boxTo = (to) => (sides ? this.#changed(before, sides, from, to) : [...from, ...to]);
    return {
      move: (point) => this.#set(boxTo(this.#camera.toPicture(point)), false),
      end: () => this.#set(this.box, true),
      cancel: () => this.#set(before, true),
    };
  }

  /** Begin with a region in the middle of what is seen, for those who have no pointer. */
  begin() {
    const { view } = this.#camera;
    const corner = (part) => this.#camera.toPicture([view.width * part, view.height * part]);
    this.#set([...corner(0.3), ...corner(0.7)], true);
  }

  /** Move by an arrow key, or resize with Shift; remove by Delete. Returns whether the key was one of these. */
  key(event) {
    const arrow = ARROWS[event.key];
    if (event.key === "Delete" || event.key === "Backspace") this.#set(null, true);
    if (!arrow || !this.box) return this.box === null;
    this.#numRepeats = event.repeat ? this.#numRepeats + 1 : 0;
    const step = Math.max(1, Math.round(Math.min(1 + this.#numRepeats / 2, MAX_KEY_STEP) / this.#camera.scale));
    const [dx, dy] = arrow.map((sign) => sign * step);
    const [x1, y1, x2, y2] = this.box;
    this.#set(event.shiftKey ? [x1, y1, Math.max(x2 + dx, x1 + 1), Math.max(y2 + dy, y1 + 1)] : this.#moved(this.box, dx, dy), false);
    return true;
  }

  /** A key was let go. */
  keyEnded(event) {
    if (ARROWS[event.key] && this.box) this.#onChange(true);
  }

  /** Boxes of the view that handles take. */
  get occupied() {
    const half = HANDLE_SIZE / 2 + 2;
    const handles = this.box ? HANDLES.map((sides) => this.#handleAt(sides)) : [];
    return handles.map(([x, y]) => [x - half, y - half, x + half, y + half]);
  }

  /** Move everything to where the camera shows it. */
  draw(label) {
    for (const element of [this.shade, this.frame]) element.classList.toggle("is-hidden", !this.box);
    if (!this.box) return;
    const { picture } = this.#camera;
    const hole = cornersOf(this.#camera.boxToView(this.box));
    const whole = cornersOf(this.#camera.boxToView([0, 0, picture.width, picture.height]));
    setAttributes(this.shade, { d: pathData([whole, hole]) });
    for (const outline of this.outlines) setAttributes(outline, { d: pathData([hole]) });
    setAttributes(this.frame, { "aria-label": label });
    HANDLES.forEach((sides, index) => {
      const [x, y] = this.#handleAt(sides);
      setAttributes(this.handles[index], { x: x - HANDLE_SIZE / 2, y: y - HANDLE_SIZE / 2 });
    });
  }

  #set(box, isFinal) {
    this.box = box && regionWithin(box, this.#camera.picture);
    this.#onChange(isFinal);
  }

  /** Where a handle is in the view. Around small regions they stand apart, so that each can be taken, and the region between them. */
  #handleAt([sx, sy]) {
    const [left, top, right, bottom] = this.#camera.boxToView(this.box);
    const along = (low, high, side) => (low + high) / 2 + (side * Math.max(high - low, ROOM)) / 2;
    return [along(left, right, sx), along(top, bottom, sy)];
  }

  /** The sides that a drag from a point moves; [0, 0] for the whole region, null outside of it. */
  #sidesAt([x, y], pointerType) {
    if (!this.box) return null;
    const reach = REACH[pointerType] ?? REACH.mouse;
    const apart = HANDLES.map((sides) => {
      const [hx, hy] = this.#handleAt(sides);
      return Math.max(Math.abs(hx - x), Math.abs(hy - y));
    });
    const nearest = apart.indexOf(Math.min(...apart));
    if (apart[nearest] <= reach) return HANDLES[nearest];
    const [left, top] = this.#handleAt([-1, -1]);
    const [right, bottom] = this.#handleAt([1, 1]);
    return x >= left && x <= right && y >= top && y <= bottom ? [0, 0] : null;
  }

  #changed(box, [sx, sy], from, to) {
    const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
    if (!sx && !sy) return this.#moved(box, dx, dy);
    const [x1, y1, x2, y2] = box;
    return [x1 + (sx < 0 ? dx : 0), y1 + (sy < 0 ? dy : 0), x2 + (sx > 0 ? dx : 0), y2 + (sy > 0 ? dy : 0)];
  }

  /** The box moved, as far as the picture goes, with its size kept. */
  #moved([x1, y1, x2, y2], dx, dy) {
    const { picture } = this.#camera;
    const right = Math.round(Math.min(Math.max(dx, -x1), picture.width - x2));
    const down = Math.round(Math.min(Math.max(dy, -y1), picture.height - y2));
    return [x1 + right, y1 + down, x2 + right, y2 + down];
  }
}
