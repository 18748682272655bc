/**
 * The grid of pictures: as high as all of them need, with elements for those alone that are in sight.
 *
 * In: pictures by position. Out: "open" with the position that was chosen. Its height follows the window's width, and the window scrolls it.
 */
import { cellOf, emptyCell } from "./cell.js";
import { make } from "./elements.js";

const MIN_CELL = 210; // pixels, where there is room for more than two in a row
const MIN_SMALL_CELL = 140;
const SMALL_WIDTH = 480;
const GAP = 12;
const WORDS_HEIGHT = 62; // of the lines below a picture
const SHAPE = 0.75;
const MORE_ROWS = 2; // above and below what is in sight
const MAX_HEIGHT = 15_000_000; // pixels; browsers cut elements that are higher

export class Grid extends EventTarget {
  #element;
  #pictures;
  #cells = new Map(); // position → {item, picture}
  #options = null;
  #focused = 0;
  #frame = 0;
  #layout = { columns: 1, width: MIN_CELL, step: 1 };

  /**
   * @param {HTMLElement} element
   * @param {import("./pictures.js").Pictures} pictures
   */
  constructor(element, pictures) {
    super();
    this.#element = element;
    this.#pictures = pictures;
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("click", ({ target }) => this.#choose(target.closest("li")));
    element.addEventListener("focusin", ({ target }) => this.#setFocused(Number(target.closest("li")?.dataset.position ?? this.#focused)));
    window.addEventListener("scroll", () => this.#invalidate(), { passive: true });
    new ResizeObserver(() => this.#invalidate()).observe(element);
    pictures.addEventListener("loaded", () => this.#invalidate());
  }

  /** How many pictures can be scrolled to. */
  get numReachable() {
    return Math.min(this.#pictures.total, Math.floor(MAX_HEIGHT / this.#layout.step) * this.#layout.columns);
  }

  /** Show the pictures from the first on; ``options`` are those of cells. */
  show(options, { isAtTop = true } = {}) {
    this.#options = options;
    for (const { item } of this.#cells.values()) item.remove();
    this.#cells.clear();
    if (isAtTop) this.#focused = 0;
    if (isAtTop && this.#element.getBoundingClientRect().top < 0) window.scrollTo({ top: 0, behavior: "instant" });
    this.#draw();
  }

  /** Bring a position into sight, and the focus to it. */
  focus(position) {
    this.#focused = Math.min(position, this.numReachable - 1);
    this.#measure();
    const { columns, step } = this.#layout;
    const top = this.#element.getBoundingClientRect().top + Math.floor(this.#focused / columns) * step;
    if (top < 0) window.scrollBy({ top: top - GAP, behavior: "instant" });
    else if (top + step > window.innerHeight) window.scrollBy({ top: top + step - window.innerHeight, behavior: "instant" });
    this.#draw();
    this.#cells.get(this.#focused)?.item.firstChild.focus({ preventScroll: true });
  }

  #invalidate() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #measure() {
    const width = this.#element.clientWidth;
    const least = width < SMALL_WIDTH ? MIN_SMALL_CELL : MIN_CELL;
    const columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    const cell = Math.floor((width - GAP * (columns - 1)) / columns);
    this.#layout = { columns, width: cell, step: Math.round(cell * SHAPE) + WORDS_HEIGHT + GAP };
    this.#element.style.height = `${Math.ceil(this.numReachable / columns) * this.#layout.step}px`;
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (!this.#options) return;
    this.#measure();
    const { columns, step } = this.#layout;
    const top = this.#element.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / step) - MORE_ROWS) * columns;
    const last = Math.min(this.numReachable, (Math.ceil((window.innerHeight - top) / step) + MORE_ROWS) * columns) - 1;
    for (const [position, { item }] of this.#cells) {
      const isKept = (position >= first && position <= last) || item.contains(document.activeElement);
      if (!isKept) this.#drop(position, item);
    }
    for (let position = first; position <= last; position++) this.#put(position);
    for (const [position, cell] of this.#cells) this.#place(position, cell.item);
    if (last >= first) this.#pictures.want(first, last);
  }

  #drop(position, item) {
    item.remove();
    this.#cells.delete(position);
  }

  /** Have an element for a position, made anew when its picture has come. */
  #put(position) {
    const picture = this.#pictures.at(position);
    const cell = this.#cells.get(position);
    if (cell && cell.picture === picture) return;
    const content = picture ? cellOf(picture, this.#options) : emptyCell();
    if (cell) {
      const hasFocus = cell.item.contains(document.activeElement);
      cell.item.replaceChildren(content);
      cell.picture = picture;
      if (hasFocus) content.focus({ preventScroll: true });
      return;
    }
    const item = make("li", { "data-position": position, "aria-posinset": position + 1 }, content);
    this.#cells.set(position, { item, picture });
    this.#element.append(item);
  }

  #place(position, item) {
    const { columns, width, step } = this.#layout;
    const [row, column] = [Math.floor(position / columns), position % columns];
    item.style.width = `${width}px`;
    item.style.height = `${step - GAP}px`;
    item.style.transform = `translate(${column * (width + GAP)}px, ${row * step}px)`;
    item.setAttribute("aria-setsize", this.#pictures.total);
    item.firstChild.tabIndex = position === this.#reachable() ? 0 : -1;
  }

  /** The position that Tab goes to: the one that had the focus last, or the first in sight. */
  #reachable() {
    return this.#cells.has(this.#focused) ? this.#focused : Math.min(...this.#cells.keys());
  }

  #setFocused(position) {
    this.#focused = position;
    for (const [other, { item }] of this.#cells) item.firstChild.tabIndex = other === position ? 0 : -1;
  }

  #choose(item) {
    if (item && !item.firstChild.classList.contains("is-waiting")) {
      this.dispatchEvent(new CustomEvent("open", { detail: { position: Number(item.dataset.position) } }));
    }
  }

  #key(event) {
    const { columns, step } = this.#layout;
    const rows = Math.max(1, Math.floor(window.innerHeight / step)) * columns;
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, PageUp: -rows, PageDown: rows, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = this.#focused + moves[event.key];
    const isStep = Math.abs(moves[event.key]) <= columns;
    if (isStep && (next < 0 || next >= this.numReachable)) return;
    this.focus(Math.max(0, Math.min(this.numReachable - 1, next)));
  }
}
