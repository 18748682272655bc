/**
 * The objects over the picture: their outlines as SVG, in lines of constant width, and their labels.
 *
 * In: layers of objects, a camera. Out: elements, and which objects are at a point. Knows nothing of pointers and keys.
 */

import { lettersOn } from "./colors.js";
import { html, setAttributes, svg } from "./elements.js";
import { isOn, pathData, shapeOf } from "./geometry.js";
import { percent, placeLabels, shortText } from "./labels.js";

const FINE_SIDE = 22; // pixels of the view: where objects are usually smaller, such as lines of text, outlines are thinner

/**
 * @typedef {object} Entry one object as it is shown
 * @property {string} layerId
 * @property {number} index its index in the layer
 * @property {object} object as the API gave it; one with a `group` has the colour of that in place of its label's
 * @property {string} written the same as JSON, as it was then: a change within it is seen
 * @property {string} text its label as it is shown
 * @property {object|null} shape null if there is nothing to draw
 * @property {string} color
 * @property {SVGGElement} element
 * @property {HTMLElement} label
 * @property {number[]|null} size of the label, once it was measured
 * @property {boolean} isShown
 */

export class Overlay {
  #layers = [];
  #threshold = 0;
  #isSelectable = false;
  #highlighted = null;
  #reachable = null; // the entry that Tab goes to
  #colors;
  #text;

  /**
   * @param {{of: (label: string) => string}} colors
   * @param {(key: string, values?: object) => string} text a message in the language of the page.
   */
  constructor(colors, text) {
    this.#colors = colors;
    this.#text = text;
    this.shapes = svg("g", { class: "viewer-objects" });
    this.labels = html("div", { class: "viewer-labels", "aria-hidden": "true" });
  }

  /** All entries that are shown, in the order of their layers. */
  get entries() {
    return this.#layers.flatMap((layer) => layer.entries.filter((entry) => entry.isShown));
  }

  get highlighted() {
    return this.#highlighted;
  }

  /** Show these layers instead of those before; elements of objects that stay are kept, and so is the focus. */
  setLayers(layers) {
    const before = new Map(this.#layers.map((layer) => [layer.id, layer]));
    this.#layers = layers.map(({ id, title = "", visible = true, objects = [] }) => {
      const layer = before.get(id) ?? this.#newLayer(id);
      before.delete(id);
      Object.assign(layer, { title, isVisible: visible });
      this.#update(layer, objects);
      return layer;
    });
    for (const layer of before.values()) this.#remove(layer);
    this.#layers.forEach(({ group }, index) => {
      const there = this.shapes.children[index];
      if (there !== group) this.shapes.insertBefore(group, there ?? null);
    });
    this.refresh();
  }

  add(layerId, object) {
    let layer = this.#layers.find(({ id }) => id === layerId);
    if (!layer) {
      layer = this.#newLayer(layerId);
      this.#layers.push(layer);
      this.shapes.append(layer.group);
    }
    this.#append(layer, object);
    const entry = layer.entries.at(-1); // the others are as they were: a stream of many objects would not get through otherwise
    this.#refreshEntry(layer, entry);
    this.#refreshGroup(layer);
    if (entry.isShown && !this.#reachable?.isShown) this.makeReachable(entry);
  }

  setThreshold(score) {
    this.#threshold = Number(score) || 0;
    this.refresh();
  }

  setSelectable(isSelectable) {
    this.#isSelectable = Boolean(isSelectable);
    this.refresh();
  }

  get isSelectable() {
    return this.#isSelectable;
  }

  find(layerId, index) {
    return this.#layers.find(({ id }) => id === layerId)?.entries[index] ?? null;
  }

  /** The entry that an element belongs to, or null. */
  entryOf(target) {
    const element = target?.closest?.(".viewer-object, .viewer-label");
    return (element && this.entries.find((entry) => entry.element === element || entry.label === element)) ?? null;
  }

  /** The entries at a point of the picture, the smallest first. */
  entriesAt(point, tolerance) {
    const found = this.entries.filter((entry) => isOn(entry.shape, point, tolerance));
    return found.sort((one, other) => one.shape.area - other.shape.area || areaAround(one) - areaAround(other));
  }

  /** Emphasize one entry, or none. */
  highlight(entry) {
    this.#highlighted?.element.classList.remove("is-highlighted");
    this.#highlighted?.label.classList.remove("is-highlighted");
    this.#highlighted = entry?.isShown ? entry : null;
    this.#highlighted?.element.classList.add("is-highlighted");
    this.#highlighted?.label.classList.add("is-highlighted");
    this.shapes.classList.toggle("has-highlight", this.#highlighted !== null);
  }

  /** Bring what is shown, and what is read out, up to date. */
  refresh() {
    for (const layer of this.#layers) {
      for (const entry of layer.entries) this.#refreshEntry(layer, entry);
      this.#refreshGroup(layer);
    }
    if (this.#highlighted && !this.#highlighted.isShown) this.highlight(null);
    this.makeReachable(this.#reachable?.isShown ? this.#reachable : (this.entries[0] ?? null));
  }

  /** Make one entry the one that Tab goes to; arrow keys lead to the others. */
  makeReachable(entry) {
    if (this.#reachable) setAttributes(this.#reachable.element, { tabindex: -1 });
    if (entry) setAttributes(entry.element, { tabindex: 0 });
    this.#reachable = entry;
  }

  /** Move everything to where the camera shows it. */
  draw(camera, taken) {
    setAttributes(this.shapes, { transform: `translate(${camera.x} ${camera.y}) scale(${camera.scale})` });
    this.shapes.classList.toggle("is-fine", usualSide(this.entries) * camera.scale < FINE_SIDE);
    const entries = this.entries.filter((entry) => entry.label.firstChild);
    for (const entry of entries) entry.size ??= [entry.label.offsetWidth, entry.label.offsetHeight];
    const items = entries.map((entry) => ({
      box: camera.boxToView(entry.shape.box),
      width: entry.size[0],
      height: entry.size[1],
      score: entry.object.score,
      isNeeded: entry === this.#highlighted,
    }));
    const positions = placeLabels(items, camera.view, taken);
    entries.forEach(({ label }, index) => {
      label.classList.toggle("is-placed", positions[index] !== null);
      if (positions[index]) label.style.transform = `translate(${positions[index].map(Math.round).join("px,")}px)`;
    });
  }

  #newLayer(id) {
    return { id, title: "", isVisible: true, entries: [], group: svg("g", { class: "viewer-layer", role: "group" }) };
  }

  #update(layer, objects) {
    const isSame = (entry, index) => entry.written === JSON.stringify(objects[index]);
    const changed = layer.entries.findIndex((entry, index) => !isSame(entry, index));
    for (const entry of changed < 0 ? [] : layer.entries.splice(changed)) removeEntry(entry);
    for (const object of objects.slice(layer.entries.length)) this.#append(layer, object);
  }

  #remove(layer) {
    layer.entries.forEach(removeEntry);
    layer.group.remove();
  }

  #append(layer, object) {
    const shape = shapeOf(object);
    const color = this.#colors.of(object.group ?? object.label);
    const element = svg("g", { class: `viewer-object is-${shape?.kind ?? "nowhere"}`, tabindex: -1 });
    if (shape) {
      const d = pathData(shape.rings);
      element.append(
        svg("path", { class: "viewer-rim", d, stroke: lettersOn(color), fill: "none" }),
        svg("path", { class: "viewer-line", d, stroke: color, fill: color, "fill-rule": "evenodd" }),
      );
      layer.group.append(element);
    }
    const text = shortText(object.label);
    const label = plateOf(object, text, color);
    const written = JSON.stringify(object);
    const entry = { layerId: layer.id, index: layer.entries.length, object, written, text, shape, color, element, label, size: null };
    if (shape) this.labels.append(entry.label);
    layer.entries.push(entry);
  }

  #refreshGroup(layer) {
    setAttributes(layer.group, { "aria-label": layer.title || this.#text("viewer.objects") });
    layer.group.classList.toggle("is-hidden", !layer.entries.some((entry) => entry.isShown));
  }

  #refreshEntry(layer, entry) {
    const { object, shape, element, label } = entry;
    entry.isShown = layer.isVisible && shape !== null && !(object.score < this.#threshold);
    element.classList.toggle("is-hidden", !entry.isShown);
    label.classList.toggle("is-hidden", !entry.isShown);
    if (shape) setAttributes(element, { role: this.#isSelectable ? "button" : "img", "aria-label": this.#nameOf(entry) });
  }

  #nameOf({ text, object, shape }) {
    const [x1, y1, x2, y2] = shape.box.map(Math.round);
    const where = this.#text(`viewer.${shape.kind}`, { x1, y1, x2, y2 });
    return [text || this.#text("viewer.unnamed"), percent(object.score), where].filter(Boolean).join(", ");
  }
}

function areaAround({ shape: { box } }) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}

/** The median of the shorter sides of objects. */
function usualSide(entries) {
  const sides = entries.map(({ shape: { box } }) => Math.min(box[2] - box[0], box[3] - box[1])).sort((one, other) => one - other);
  return sides[sides.length >> 1] ?? Infinity;
}

function removeEntry(entry) {
  entry.isShown = false;
  entry.element.remove();
  entry.label.remove();
}

/** The plate with an object's label and score; empty if it has neither. */
function plateOf({ label, score }, text, color) {
  const plate = html("div", { class: "viewer-label" });
  plate.style.backgroundColor = color;
  plate.style.color = lettersOn(color);
  const figure = percent(score);
  if (text) plate.append(html("span", { class: "viewer-text", dir: "auto" }, text));
  if (figure) plate.append(html("span", { class: "viewer-score" }, figure));
  if (text) plate.title = String(label);
  return plate;
}
