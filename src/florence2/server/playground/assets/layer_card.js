/** One layer in the list of answers: its title and switches, its text or objects, what follows from it, what it took. */
import { canGround, tasksAboutObject } from "./cascades.js";
import { icon, make } from "./elements.js";
import { decimal, language, t } from "./i18n.js";
import { plainText } from "./viewer/labels.js";

/**
 * @typedef {{toggle: Function, remove: Function, stop: Function, ground: Function, code: Function,
 *   copy: (text: string, button: HTMLElement) => void, hover: (layer: any, index: number|null) => void, pick: (layer: any, index: number) => void,
 *   describe: (layer: any, index: number) => void, colorOf: (label: string) => string, titleOf: (layer: any) => string}} Actions
 */

export class LayerCard {
  #layer;
  #actions;
  #rows = [];
  #numBelow = 0; // rows that the threshold hides
  #shown = []; // objects of the rows
  #shownIn = ""; // language of the rows
  #title = make("h3", { class: "layer-title", "data-testid": "layer-title" });
  #summary = make("p", { class: "layer-summary", "data-testid": "layer-summary" });
  #text = make("p", { class: "layer-text", "data-testid": "layer-text" });
  #list = make("ul", { class: "objects" });
  #toggle = make("button", { type: "button", class: "quiet icon-only", "data-testid": "layer-toggle" });
  #remove = make("button", { type: "button", class: "quiet icon-only", "data-testid": "layer-remove" }, icon("close"));
  #follow = make("div", { class: "layer-actions" });
  #stats = make("p", { class: "layer-stats", "data-testid": "layer-stats" });

  /**
   * @param {import("./session.js").Layer} layer
   * @param {Actions} actions
   */
  constructor(layer, actions) {
    this.#layer = layer;
    this.#actions = actions;
    this.#toggle.addEventListener("click", () => actions.toggle(layer));
    this.#remove.addEventListener("click", () => (layer.state === "running" ? actions.stop(layer) : actions.remove(layer)));
    this.element = make("li", { class: "layer", "data-testid": "layer", "data-tag": layer.tag ?? "" },
      make("div", { class: "layer-top" }, this.#title, this.#toggle, this.#remove),
      this.#summary, this.#text, this.#list, this.#follow, this.#stats);
  }

  /**
   * Show the layer as it is now.
   * @param {number} threshold objects with a lower score are left out
   */
  update(threshold) {
    const layer = this.#layer;
    const title = this.#actions.titleOf(layer);
    this.element.dataset.state = layer.state;
    this.element.classList.toggle("is-hidden", !layer.isVisible);
    this.#title.textContent = this.#title.title = title;
    this.#remove.setAttribute("aria-label", t(layer.state === "running" ? "layer.stop" : "layer.remove", { title }));
    this.#showToggle(title);
    this.showText();
    this.#showObjects();
    this.setThreshold(threshold);
    this.#showFollow();
    this.#stats.replaceChildren(...statsOf(layer).map((text) => make("span", { text })));
  }

  /** Show the text as far as it is there. */
  showText() {
    this.#text.hidden = !this.#layer.isText || (this.#layer.answerText === "" && this.#layer.state !== "running");
    this.#text.textContent = this.#layer.answerText;
    this.#text.lang = /[가-힣]/.test(this.#layer.answerText) ? "ko" : "en";
  }

  /**
   * Add a row for the newest object.
   * @param {number} threshold
   */
  addObject(threshold) {
    this.#addRow(this.#layer.objects.length - 1);
    this.#hideRow(this.#rows.length - 1, threshold);
    this.summarize();
  }

  /** @param {number} threshold objects with a lower score are left out */
  setThreshold(threshold) {
    this.#rows.forEach((_, index) => this.#hideRow(index, threshold));
    this.summarize();
  }

  /** Say in a few words how far the layer is. */
  summarize() {
    this.#summary.textContent = summaryOf(this.#layer, this.#numBelow);
    this.#summary.hidden = this.#summary.textContent === "";
  }

  /** @param {number|null} index the row that is pointed at in the picture; null: none */
  highlight(index) {
    this.#rows.forEach((row, number) => row.classList.toggle("is-highlighted", number === index));
  }

  #showToggle(title) {
    const { isVisible, objects } = this.#layer;
    this.#toggle.hidden = objects.length === 0;
    this.#toggle.replaceChildren(icon(isVisible ? "eye" : "eye-off"));
    this.#toggle.setAttribute("aria-pressed", String(isVisible));
    this.#toggle.setAttribute("aria-label", t("layer.show", { title }));
  }

  /** Write the rows anew only where they change: one of them may have the focus. */
  #showObjects() {
    const { isText, objects } = this.#layer;
    if (isText || (this.#shownIn === language() && JSON.stringify(objects) === JSON.stringify(this.#shown))) return;
    this.#rows = [];
    this.#shown = [];
    this.#numBelow = 0;
    this.#list.replaceChildren();
    objects.forEach((_, index) => this.#addRow(index));
    this.#list.hidden = objects.length === 0;
    this.#shownIn = language();
  }

  #hideRow(index, threshold) {
    const row = this.#rows[index];
    const isBelow = (this.#layer.objects[index]?.score ?? 1) < threshold;
    this.#numBelow += Number(isBelow) - Number(row.hidden);
    row.hidden = isBelow;
  }

  #addRow(index) {
    const row = objectRow(this.#layer, index, this.#actions);
    this.#rows.push(row);
    this.#shown.push(this.#layer.objects[index]);
    this.#list.append(row);
    this.#list.hidden = false;
  }

  #showFollow() {
    const { state, answerText, answer, isText } = this.#layer;
    const buttons = [];
    if (canGround(this.#layer)) {
      const ground = () => this.#actions.ground(this.#layer);
      buttons.push(make("button", { type: "button", class: "follow", "data-testid": "follow-ground", onclick: ground, text: t("follow.ground") }));
    }
    if (isText && state !== "running" && answerText) buttons.push(this.#copyButton("layer.copy", "copy-text", answerText));
    if (answer) buttons.push(this.#copyButton("layer.copy_json", "copy-json", JSON.stringify(answer, null, 2)), this.#codeButton());
    this.#follow.replaceChildren(...buttons);
  }

  #copyButton(key, testId, text) {
    const button = make("button", { type: "button", class: "quiet", "data-testid": testId }, icon("copy"), make("span", { text: t(key) }));
    button.addEventListener("click", () => this.#actions.copy(text, button));
    return button;
  }

  #codeButton() {
    const open = () => this.#actions.code(this.#layer);
    const words = make("span", { text: t("layer.code") });
    return make("button", { type: "button", class: "quiet", "data-testid": "layer-code", onclick: open }, icon("code"), words);
  }
}

/**
 * What an object is called in lists: its label on one line, or its number.
 * @param {string} label
 * @param {number} index
 */
export function nameOf(label, index) {
  return plainText(label) || t("layer.unnamed", { number: index + 1 });
}

function objectRow(layer, index, actions) {
  const { label, box, score } = layer.objects[index];
  const name = nameOf(label, index);
  const place = box.map((value) => Math.round(value)).join(" ");
  const dot = make("span", { class: "dot" });
  dot.style.backgroundColor = actions.colorOf(label);
  const select = make("button", { type: "button", class: "object", "data-testid": "object", "data-index": index, title: `${name}\n${place}` },
    dot, make("span", { class: "object-label", dir: "auto", text: name }),
    make("span", { class: "object-score", text: score === undefined ? "" : `${decimal(score * 100, 0)} %` }),
    make("span", { class: "object-box", text: place }));
  select.addEventListener("click", () => actions.pick(layer, index));
  const task = t(`follow.${tasksAboutObject(layer)[0].slice(1, -1)}`);
  const describe = make("button", { type: "button", class: "quiet icon-only object-describe", "data-testid": "object-describe",
    "aria-label": `${task}: ${name}`, title: task }, icon("chat"));
  describe.addEventListener("click", () => actions.describe(layer, index));
  const row = make("li", { class: "object-row", "data-testid": "object-row" }, select, describe);
  for (const event of ["pointerenter", "focusin"]) row.addEventListener(event, () => actions.hover(layer, index));
  for (const event of ["pointerleave", "focusout"]) row.addEventListener(event, () => actions.hover(layer, null));
  return row;
}

/**
 * A layer's outcome in a few words; empty for a text that is there.
 * @param {import("./session.js").Layer} layer
 * @param {number} numBelow objects below the threshold
 */
export function summaryOf(layer, numBelow = 0) {
  const { state, objects, isText, answerText, isCutOff, startedAt } = layer;
  const parts = [];
  if (state === "stopped") parts.push(t("layer.stopped"));
  if (state === "failed") parts.push(t("layer.failed"));
  if (state === "running" && !objects.length && !answerText) parts.push(waiting(startedAt));
  if (!isText && objects.length) parts.push(t("layer.objects", { count: objects.length }));
  if (state === "done" && !isText && !objects.length) parts.push(t("layer.nothing"));
  if (state === "done" && isText && !answerText) parts.push(t("layer.no_text"));
  if (numBelow) parts.push(t("layer.hidden_objects", { count: numBelow }));
  if (isCutOff) parts.push(t("layer.cut_off"));
  return parts.join(" · ");
}

function waiting(startedAt) {
  const seconds = Math.floor((performance.now() - startedAt) / 1000);
  return seconds < 2 ? t("layer.running") : t("layer.running_for", { seconds });
}

function statsOf({ firstMs, wholeMs, usage }) {
  const seconds = (milliseconds) => ({ seconds: decimal(milliseconds / 1000, 2) });
  return [
    firstMs !== null && t("layer.first_event", seconds(firstMs)),
    wholeMs !== null && t("layer.whole", seconds(wholeMs)),
    usage && t("layer.tokens", { count: usage.completion_tokens }),
    usage && t(usage.image_cached ? "layer.cached" : "layer.uncached"),
  ].filter(Boolean);
}
