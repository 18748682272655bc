/**
 * The picture with the answers over it: zoomed and moved, objects pointed at and chosen, a region drawn.
 *
 * In: a picture, layers of objects as the API gives them. Out: the events "hover", "select" and "region", and a drawing as PNG. The
 * coordinates of all of them are pixels of the picture. Knows nothing of requests and of the rest of the page.
 */

import { PAGE_WORDS } from "./page_words.js";
import { Camera } from "./viewer/camera.js";
import { LabelColors } from "./viewer/colors.js";
import { drawingOf } from "./viewer/drawing.js";
import { html, setAttributes, svg } from "./viewer/elements.js";
import { Gestures } from "./viewer/gestures.js";
import { Keys } from "./viewer/keys.js";
import { Overlay } from "./viewer/overlay.js";
import { Picture } from "./viewer/picture.js";
import { Region } from "./viewer/region.js";
import { Tools } from "./viewer/tools.js";

const ZOOM_STEP = 1.5;
const TOLERANCE = { mouse: 4, pen: 6, touch: 14 }; // pixels of the view beside an outline that still count as on it
const SAME_POINT = 6; // pixels of the view between clicks that go through the objects below each other

export class Viewer extends EventTarget {
  #messages;
  #text = (key, values) => filled(this.#messages, key, values);
  #colors = new LabelColors();
  #camera = new Camera();
  #overlay = new Overlay(this.#colors, this.#text);
  #region = new Region(this.#camera, (isFinal) => this.#regionChanged(isFinal));
  #tools = new Tools({ zoomOut: () => this.zoomOut(), zoomIn: () => this.zoomIn(), fit: () => this.fit() });
  #canvas = html("canvas", { class: "viewer-picture", role: "img" });
  #help = html("p", { class: "viewer-help", id: `viewer-help-${Viewer.#count++}` });
  #surface; // the element that shows the picture and takes pointers and keys
  #element;
  #gestures;
  #keys;
  #picture = null;
  #numLoads = 0;
  #frame = 0;
  #ratio = 0; // device pixels per pixel of the view
  #hovered = null;
  #lastTap = null; // where, and which object was chosen
  static #count = 0;

  /**
   * @param {HTMLElement} container its size is the viewer's.
   * @param {{messages?: object}} options messages: the texts by their keys, as in ``i18n.js``; English where they are missing.
   */
  constructor(container, { messages } = {}) {
    super();
    this.#messages = messages;
    const shapes = svg("svg", { class: "viewer-shapes" }, this.#region.shade, this.#overlay.shapes, this.#region.frame);
    this.#surface = html("div", { class: "viewer-surface", tabindex: 0, role: "group" }, this.#canvas, shapes, this.#overlay.labels);
    setAttributes(this.#surface, { "aria-describedby": this.#help.id });
    this.#element = html("div", { class: "viewer is-empty" }, this.#surface, this.#tools.element, this.#help);
    container.append(this.#element);
    const target = this.#target();
    this.#gestures = new Gestures(this.#surface, target);
    this.#keys = new Keys(this.#surface, this.#overlay, this.#region, target);
    this.#surface.addEventListener("focusin", (event) => this.#focused(event));
    this.#surface.addEventListener("focusout", () => this.#hover(null));
    this.#surface.addEventListener("click", (event) => event.detail === 0 && this.#select(this.#overlay.entryOf(event.target)));
    new ResizeObserver(() => this.#resize()).observe(this.#surface);
    this.#translate();
  }

  /**
   * Show a picture; what was drawn on the one before is removed.
   *
   * @param {{url: string, name?: string, width?: number, height?: number}} source an object URL or one of the same origin; width and height
   *   are the size in whose pixels objects are given, the picture's own if left out.
   * @throws {Error} if the browser can't decode it; the picture before stays.
   */
  async setImage(source) {
    const load = ++this.#numLoads;
    const picture = await Picture.load(source).catch((cause) => {
      throw new Error(this.#text("viewer.unreadable"), { cause });
    });
    if (load !== this.#numLoads) return picture.close(); // another was set in the meantime
    this.clear();
    this.#picture = picture;
    this.#element.classList.remove("is-empty");
    this.#camera.show(picture);
    this.#translate();
  }

  /** Remove the picture and all that is drawn on it. A user who may draw a region may go on to do so. */
  clear() {
    this.#numLoads++;
    this.#gestures.cancelDrag();
    this.#hover(null);
    this.#picture?.close();
    this.#picture = null;
    this.#element.classList.add("is-empty");
    this.#overlay.setLayers([]);
    this.#colors.clearIfMany();
    this.#region.box = null;
    this.#translate();
  }

  setMessages(messages) {
    this.#messages = messages;
    this.#translate();
  }

  /** @param {{id: string, title: string, visible: boolean, objects: object[]}[]} layers the first is the lowest. */
  setLayers(layers) {
    this.#overlay.setLayers(layers);
    this.#invalidate();
  }

  /** Add an object to a layer, as it comes from a stream. */
  addObject(layerId, object) {
    this.#overlay.add(layerId, object);
    this.#invalidate();
  }

  /** Hide objects with a lower score; those without a score stay. */
  setThreshold(score) {
    this.#overlay.setThreshold(score);
    this.#invalidate();
  }

  /** Emphasize an object; ``highlight(null)`` ends it. */
  highlight(layerId, index) {
    this.#overlay.highlight(layerId === null ? null : this.#overlay.find(layerId, index));
    this.#invalidate();
  }

  /** Whether clicks and Enter on objects are "select" events. */
  setSelectable(isSelectable) {
    this.#overlay.setSelectable(isSelectable);
    this.#lastTap = null;
    this.#translate();
  }

  /** Let the user draw a region, or change this one: x1, y1, x2, y2 in pixels of the picture. */
  startRegion(region = null) {
    this.#region.start(region);
    this.#translate();
  }

  endRegion() {
    this.#region.end();
    this.#translate();
  }

  /** The region in whole pixels of the picture, or null. */
  get region() {
    return this.#region.box && [...this.#region.box];
  }

  zoomIn() {
    this.#camera.zoom(ZOOM_STEP);
    this.#invalidate();
  }

  zoomOut() {
    this.#camera.zoom(1 / ZOOM_STEP);
    this.#invalidate();
  }

  /** Show the whole picture. */
  fit() {
    this.#camera.fit();
    this.#invalidate();
  }

  /**
   * The picture in its own pixels with the drawing that is visible.
   *
   * @returns {Promise<Blob & {scale: number}>} a PNG; scale is 1, or less where the browser has no canvas as large as the picture.
   * @throws {Error} if there is no picture.
   */
  async toPng() {
    if (!this.#picture) throw new Error(this.#text("viewer.empty"));
    return drawingOf(this.#picture, this.#overlay.entries);
  }

  /** The colour of a label, as "#RRGGBB". */
  colorOf(label) {
    return this.#colors.of(label);
  }

  #translate() {
    const { name, width, height } = this.#picture ?? {};
    const label = this.#picture ? this.#text("viewer.picture", { name: name || "", width, height }) : this.#text("viewer.empty");
    setAttributes(this.#canvas, { "aria-label": label });
    setAttributes(this.#surface, { "aria-label": label });
    const helps = ["viewer.help", this.#overlay.isSelectable && "viewer.help_objects", this.#region.isActive && "viewer.help_region"];
    this.#help.textContent = helps.filter(Boolean).map((key) => this.#text(key)).join(" ");
    this.#surface.classList.toggle("is-drawing", this.#region.isActive);
    this.#tools.translate(this.#text);
    this.#overlay.refresh();
    this.#invalidate();
  }

  #resize() {
    this.#followRatio();
    const { clientWidth: width, clientHeight: height } = this.#surface;
    this.#canvas.width = Math.max(1, Math.round(width * this.#ratio));
    this.#canvas.height = Math.max(1, Math.round(height * this.#ratio));
    this.#camera.resize({ width, height });
    this.#draw();
  }

  /** Draw anew also when the window goes to a screen with other pixels. */
  #followRatio() {
    if (this.#ratio === window.devicePixelRatio) return;
    this.#ratio = window.devicePixelRatio;
    matchMedia(`(resolution: ${this.#ratio}dppx)`).addEventListener("change", () => this.#resize(), { once: true });
  }

  #invalidate() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const context = this.#canvas.getContext("2d");
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#surface.classList.toggle("is-zoomed", !this.#camera.isFitted);
    if (!this.#picture) return;
    this.#picture.draw(context, this.#camera, this.#ratio);
    const { offsetLeft, offsetTop, offsetWidth, offsetHeight } = this.#tools.element;
    const tools = [offsetLeft, offsetTop, offsetLeft + offsetWidth, offsetTop + offsetHeight];
    this.#overlay.draw(this.#camera, [tools, ...this.#region.occupied]);
    const [x1, y1, x2, y2] = this.#region.box ?? [];
    this.#region.draw(this.#text("viewer.region", { x1, y1, x2, y2 }));
    this.#tools.draw(this.#camera.scale);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #regionChanged(isFinal) {
    this.#emit("region", { region: this.region, isFinal });
    this.#invalidate();
  }

  /** What gestures and keys may do. */
  #target() {
    const changed = (change) => (...values) => {
      change(...values);
      this.#invalidate();
    };
    const pan = changed((dx, dy) => this.#camera.pan(dx, dy));
    return {
      isEmpty: () => this.#picture === null,
      pan,
      zoomIn: () => this.zoomIn(),
      zoomOut: () => this.zoomOut(),
      fit: () => this.fit(),
      zoom: changed((factor, point) => this.#camera.zoom(factor, point)),
      beginPan: (start) => this.#panFrom(start, pan),
      beginDrag: (start, event) => this.#beginDrag(start, event, pan),
      hover: (point, event) => this.#pointed(point, event),
      tap: (point, event) => this.#tapped(point, event),
      select: (entry) => this.#select(entry),
      beginRegion: () => this.#beginRegion(),
      cancelDrag: () => this.#gestures.cancelDrag(),
    };
  }

  #beginDrag(start, event, pan) {
    if (!this.#picture || !this.#region.isActive || this.#keys.isSpaceHeld) return this.#panFrom(start, pan);
    const drag = this.#region.beginDrag(start, event.pointerType);
    this.#hover(null);
    const end = () => {
      drag.end();
      this.#focusRegion();
    };
    return { ...drag, end };
  }

  #beginRegion() {
    this.#region.begin();
    this.#focusRegion();
  }

  #focusRegion() {
    this.#draw();
    this.#region.frame.focus({ preventScroll: true });
  }

  #panFrom(start, pan) {
    let last = start;
    this.#surface.classList.add("is-panning");
    const end = () => this.#surface.classList.remove("is-panning");
    const move = (point) => {
      pan(point[0] - last[0], point[1] - last[1]);
      last = point;
    };
    return { move, end, cancel: end };
  }

  #entriesAt(point, { pointerType, target }) {
    const tolerance = (TOLERANCE[pointerType] ?? TOLERANCE.mouse) / this.#camera.scale;
    const found = this.#overlay.entriesAt(this.#camera.toPicture(point), tolerance);
    const labelled = this.#overlay.entryOf(target);
    return labelled ? [labelled, ...found.filter((entry) => entry !== labelled)] : found;
  }

  #pointed(point, event) {
    const isOnRegion = point && this.#region.isActive && this.#region.isAt(point, event.pointerType);
    const entry = point && !isOnRegion ? (this.#entriesAt(point, event)[0] ?? null) : null;
    this.#hover(entry);
    const idle = entry && this.#overlay.isSelectable ? "pointer" : "";
    this.#surface.style.cursor = point && this.#region.isActive ? this.#region.cursorAt(point) : idle;
  }

  /** Choose the smallest object at a point; at the same point again, the next larger one. */
  #tapped(point, event) {
    const entries = this.#entriesAt(point, event);
    const last = this.#lastTap;
    const isSamePoint = last && Math.hypot(point[0] - last.point[0], point[1] - last.point[1]) <= SAME_POINT;
    const next = entries[isSamePoint ? (entries.indexOf(last.entry) + 1) % entries.length : 0] ?? null;
    this.#lastTap = { point, entry: next };
    this.#hover(next);
    this.#select(next);
  }

  #select(entry) {
    if (entry && this.#overlay.isSelectable) this.#emit("select", { layerId: entry.layerId, index: entry.index });
  }

  #hover(entry) {
    if (entry === this.#hovered) return;
    this.#hovered = entry;
    this.#overlay.highlight(entry);
    this.#emit("hover", entry ? { layerId: entry.layerId, index: entry.index } : { layerId: null });
    this.#invalidate();
  }

  #focused({ target }) {
    const entry = this.#overlay.entryOf(target);
    if (!entry) return;
    this.#overlay.makeReachable(entry);
    this.#camera.reveal(entry.shape.box);
    this.#hover(entry);
  }
}

/** A message with its names in braces filled in; English where the table lacks it. */
function filled(messages, key, values = {}) {
  const text = messages?.[key] ?? PAGE_WORDS[key][0];
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}
