/** The list of answers about the current picture, in step with what the viewer draws. */
import { byId } from "./elements.js";
import { languages } from "./i18n.js";
import { LayerCard } from "./layer_card.js";

export class Results {
  #session;
  #viewer;
  #actions;
  /** @type {Map<string, LayerCard>} */
  #cards = new Map();
  #threshold = 0;

  /**
   * @param {import("./session.js").Session} session
   * @param {import("./viewer.js").Viewer} viewer
   * @param {Omit<import("./layer_card.js").Actions, "toggle"|"remove"|"hover"|"colorOf">} actions
   */
  constructor(session, viewer, actions) {
    this.#session = session;
    this.#viewer = viewer;
    this.#actions = {
      ...actions,
      toggle: (layer) => session.changeLayer(layer, { isVisible: !layer.isVisible }),
      remove: (layer) => this.#remove(layer),
      hover: (layer, index) => viewer.highlight(index === null ? null : layer.id, index),
      colorOf: (label) => viewer.colorOf(label),
    };
    session.addEventListener("layers", () => this.render());
    languages.addEventListener("change", () => this.render());
    viewer.addEventListener("hover", (event) => this.#highlight(event.detail));
    byId("threshold").addEventListener("input", () => this.#setThreshold());
    byId("remove-all").addEventListener("click", () => this.#removeAll());
  }

  /** Show the current picture's layers, in the list and in the picture. */
  render() {
    const layers = this.#session.current?.layers ?? [];
    const drawn = layers.map(({ id, isVisible, objects }) => ({ id, title: "", visible: isVisible, objects: [...objects] }));
    this.#viewer.setLayers(drawn.reverse()); // the first is the lowest there
    const ids = new Set(layers.map((layer) => layer.id));
    for (const [id, card] of this.#cards) if (!ids.has(id)) this.#drop(id, card);
    layers.forEach((layer, index) => this.#show(layer, index));
    byId("answers-empty").hidden = layers.length > 0;
    byId("answer-tools").hidden = !layers.some((layer) => layer.answer);
    byId("threshold-row").hidden = !layers.some((layer) => layer.objects.some((object) => object.score !== undefined));
  }

  /** Show what came of a running text. */
  showText(layer) {
    this.#cards.get(layer.id)?.showText();
    this.#cards.get(layer.id)?.summarize();
  }

  /** Say how long running layers have been waiting. */
  tick() {
    for (const card of this.#cards.values()) card.summarize();
  }

  /** Show an object that was just found. */
  addObject(layer, object) {
    if (!this.#cards.has(layer.id)) return; // another picture is shown
    this.#viewer.addObject(layer.id, object);
    this.#cards.get(layer.id).addObject(this.#threshold);
  }

  /**
   * Bring a layer into sight.
   * @param {import("./session.js").Layer} layer
   */
  reveal(layer) {
    this.#cards.get(layer.id)?.element.scrollIntoView({ block: "nearest" });
  }

  /** The layers as they are seen: those that are switched on, without objects below the least score. */
  get shownLayers() {
    const isSeen = ({ score }) => (score ?? 1) >= this.#threshold;
    const layers = this.#session.current?.layers ?? [];
    return layers.filter((layer) => layer.isVisible).map(({ id, objects }) => ({ id, objects: objects.filter(isSeen) }));
  }

  #show(layer, index) {
    if (!this.#cards.has(layer.id)) this.#cards.set(layer.id, new LayerCard(layer, this.#actions));
    const card = this.#cards.get(layer.id);
    card.update(this.#threshold);
    const list = byId("layers");
    if (list.children[index] !== card.element) list.insertBefore(card.element, list.children[index] ?? null);
  }

  #drop(id, card) {
    card.element.remove();
    this.#cards.delete(id);
  }

  #remove(layer) {
    this.#session.removeLayer(layer.id);
    byId("code-open").focus(); // the button that had the focus is gone
  }

  #removeAll() {
    for (const layer of this.#session.current.layers) if (layer.state === "running") this.#actions.stop(layer);
    this.#session.removeLayer(null);
    byId("code-open").focus();
  }

  #highlight({ layerId, index }) {
    for (const [id, card] of this.#cards) card.highlight(id === layerId ? index : null);
  }

  #setThreshold() {
    const percent = Number(byId("threshold").value);
    byId("threshold-value").textContent = `${percent} %`;
    this.#threshold = percent / 100;
    this.#viewer.setThreshold(this.#threshold);
    for (const card of this.#cards.values()) card.setThreshold(this.#threshold);
  }
}
