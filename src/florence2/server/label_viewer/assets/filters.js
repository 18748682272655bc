/**
 * The form of the filters. In: the counts of the run and a state. Out: "change" with the state that the form has. Knows nothing of pictures.
 *
 * @typedef {import("./address.js").State} State
 */
import { filterWords, ORDERS, SHOWN, SPLITS } from "./address.js";
import { ClassList } from "./class_list.js";
import { byId, make } from "./elements.js";
import { whole } from "./found.js";
import { t } from "./i18n.js";

const TYPING_MS = 200; // after the last key until what was typed counts

export class Filters extends EventTarget {
  #summary = null;
  #state = null;
  #classes;
  #timer = 0;

  /** @param {(label: string) => string} colorOf */
  constructor(colorOf) {
    super();
    this.#classes = new ClassList(colorOf, () => this.#changed());
    const form = byId("filter-form");
    form.addEventListener("submit", (event) => event.preventDefault());
    byId("text").addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#changed(), TYPING_MS);
    });
    for (const id of ["order", "shown", "split"]) byId(id).addEventListener("change", () => this.#changed());
    for (const id of ["min", "max"]) byId(id).addEventListener("input", ({ target }) => this.#slid(target));
    byId("reset").addEventListener("click", () => this.#reset());
  }

  /** Offer what the run has. */
  setSummary(summary) {
    this.#summary = summary;
    byId("split-row").hidden = !summary.splits.train || !summary.splits.val;
    byId("score-row").hidden = !summary.has_scores;
    this.#classes.setClasses(summary.classes);
    this.translate();
  }

  /** Show a state in the form. */
  show(state) {
    this.#state = state;
    byId("text").value = state.text;
    byId("order").value = state.order;
    byId("shown").value = state.shown;
    byId("split").value = state.split;
    byId("min").value = Math.round(state.min * 100);
    byId("max").value = Math.round(state.max * 100);
    this.#classes.show(state.classes);
    this.#describe();
  }

  /** Write the words anew, in another language or with other counts. */
  translate() {
    const { num_labelled: labelled, num_problems: problems, splits } = this.#summary;
    const counts = { all: labelled + problems, labelled, problems, train: splits.train, val: splits.val };
    fill("order", ORDERS, (name) => t(`order.${name}`));
    fill("shown", SHOWN, (name) => t(`shown.${name}`, { count: whole(counts[name] ?? 0) }));
    fill("split", SPLITS, (name) => t(`split.${name || "both"}`, { count: whole(counts[name] ?? 0) }));
    this.#classes.translate();
  }

  #describe() {
    for (const id of ["min", "max"]) byId(`${id}-value`).textContent = `${byId(id).value} %`;
    byId("reset").hidden = [...filterWords({ ...this.#state, order: ORDERS[0] })].length === 0;
  }

  /** Neither slider passes the other. */
  #slid(slider) {
    const [low, high] = [byId("min"), byId("max")];
    if (Number(low.value) > Number(high.value)) (slider === low ? high : low).value = slider.value;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#changed(), TYPING_MS / 2);
    this.#describe();
  }

  #reset() {
    this.show({ ...this.#state, classes: [], min: 0, max: 1, split: "", shown: SHOWN[0], text: "" });
    byId("text").focus();
    this.#changed();
  }

  #changed() {
    clearTimeout(this.#timer);
    this.#state = {
      ...this.#state,
      classes: this.#classes.chosen,
      min: Number(byId("min").value) / 100,
      max: Number(byId("max").value) / 100,
      split: byId("split").value,
      shown: byId("shown").value,
      text: byId("text").value,
      order: byId("order").value,
    };
    this.#describe();
    this.dispatchEvent(new CustomEvent("change", { detail: { state: this.#state } }));
  }
}

function fill(id, values, wordsOf) {
  const chosen = byId(id).value;
  byId(id).replaceChildren(...values.map((value) => make("option", { value, text: wordsOf(value) })));
  byId(id).value = values.includes(chosen) ? chosen : values[0];
}
