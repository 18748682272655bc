/**
 * What this page holds: the pictures of the session, each with its layers, and which of them is shown. It lives in memory only.
 *
 * A layer is one answer, running or whole, see `Layer`; `subject` is what its region was found as, if it follows from an object. Sends "picture" when another
 * picture is shown, "layers" when the current one's layers changed, "history" when the list of pictures changed.
 */
import { closePicture } from "./picture.js";

/**
 * @typedef {{label: string, box: number[], quad?: number[], polygons?: number[][], score?: number}} FoundObject
 * @typedef {{id: string, tag: string|null, text: string, texts: string[], subject: string, region: number[]|null, request: Record<string, any>,
 *   state: "running"|"done"|"stopped"|"failed", isVisible: boolean, objects: FoundObject[], answerText: string, isText: boolean,
 *   answer: any, isCutOff: boolean, startedAt: number, firstMs: number|null, wholeMs: number|null, usage: any}} Layer
 * @typedef {import("./picture.js").Picture & {id: string, layers: Layer[]}} Shown
 */

const MAX_PICTURES = 24;

export class Session extends EventTarget {
  /** @type {Shown[]} newest first */
  pictures = [];
  /** @type {Shown|null} */
  current = null;
  #number = 0;

  /**
   * Add a picture and show it. Beyond 24 the oldest is dropped.
   * @param {import("./picture.js").Picture} picture
   */
  add(picture) {
    const shown = { ...picture, id: `p${++this.#number}`, layers: [] };
    this.pictures.unshift(shown);
    this.pictures.splice(MAX_PICTURES).forEach(closePicture);
    this.show(shown.id);
  }

  /**
   * Show a picture of the session with its layers.
   * @param {string} id
   */
  show(id) {
    this.current = this.pictures.find((picture) => picture.id === id) ?? null;
    this.#send("picture");
    this.#send("history");
  }

  /**
   * A new layer of the current picture, on top.
   * @param {Partial<Layer>} fields
   * @returns {Layer}
   */
  addLayer(fields) {
    const layer = {
      id: `l${++this.#number}`, tag: null, text: "", texts: [], subject: "", region: null, request: {}, state: "running", isVisible: true, objects: [],
      answerText: "", isText: false, answer: null, isCutOff: false, startedAt: performance.now(), firstMs: null, wholeMs: null, usage: null, ...fields,
    };
    this.current.layers.unshift(layer);
    this.#send("layers");
    this.#send("history");
    return layer;
  }

  /**
   * Remove a layer of whichever picture; null removes all layers of the current one.
   * @param {string|null} id
   */
  removeLayer(id) {
    if (id === null) this.current.layers = [];
    else for (const picture of this.pictures) picture.layers = picture.layers.filter((layer) => layer.id !== id);
    this.#send("layers");
    this.#send("history");
  }

  /**
   * Tell everybody that a layer is not what it was.
   * @param {Layer} layer
   * @param {Partial<Layer>} fields
   */
  changeLayer(layer, fields) {
    Object.assign(layer, fields);
    this.#send("layers");
  }

  /**
   * The layer of the current picture with an id.
   * @param {string} id
   * @returns {Layer|undefined}
   */
  layer(id) {
    return this.current?.layers.find((layer) => layer.id === id);
  }

  #send(name) {
    this.dispatchEvent(new Event(name));
  }
}
