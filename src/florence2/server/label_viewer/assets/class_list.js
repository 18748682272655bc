/** The classes to choose from: those with the most pictures, the chosen ones, and those that a name leads to. */
import { byId, make } from "./elements.js";
import { whole } from "./found.js";
import { t } from "./i18n.js";

const MAX_SHOWN = 100;
const NUM_WITHOUT_SEARCH = 12;

export class ClassList {
  #colorOf;
  #onChange;
  #classes = [];
  #chosen = new Set();

  /**
   * @param {(label: string) => string} colorOf
   * @param {() => void} onChange called when another class is chosen
   */
  constructor(colorOf, onChange) {
    this.#colorOf = colorOf;
    this.#onChange = onChange;
    byId("class-search").addEventListener("input", () => this.#render());
  }

  /** The names of the chosen classes. */
  get chosen() {
    return [...this.#chosen];
  }

  setClasses(classes) {
    this.#classes = classes.filter(({ num_pictures: count }) => count > 0).sort((one, other) => other.num_pictures - one.num_pictures);
    byId("classes-row").hidden = this.#classes.length === 0;
    byId("class-search").hidden = this.#classes.length <= NUM_WITHOUT_SEARCH;
  }

  /** Show which classes are chosen. */
  show(names) {
    this.#chosen = new Set(names);
    this.#render();
  }

  translate() {
    this.#render();
  }

  #render() {
    const words = byId("class-search").value.trim().toLowerCase();
    const isFirst = ({ name }) => this.#chosen.has(name);
    const found = this.#classes.filter((one) => isFirst(one) || one.name.toLowerCase().includes(words));
    const shown = [...found.filter(isFirst), ...found.filter((one) => !isFirst(one))].slice(0, Math.max(MAX_SHOWN, this.#chosen.size));
    const inOrder = this.#classes.filter((one) => shown.includes(one));
    byId("classes").replaceChildren(...inOrder.map((one) => this.#row(one)));
    const numLeft = found.length - shown.length;
    byId("classes-more").hidden = numLeft === 0;
    byId("classes-more").textContent = t("filters.classes_more", { count: numLeft });
  }

  #row({ name, num_pictures: count }) {
    const box = make("input", { type: "checkbox", checked: this.#chosen.has(name), onchange: ({ target }) => this.#toggled(name, target.checked) });
    const dot = make("span", { class: "dot", "aria-hidden": "true" });
    dot.style.background = this.#colorOf(name);
    const label = make("span", { class: "class-name", title: name }, make("bdi", { text: name }));
    return make("li", {}, make("label", { class: "check" }, box, dot, label, make("span", { class: "class-count", text: whole(count) })));
  }

  #toggled(name, isChosen) {
    if (isChosen) this.#chosen.add(name);
    else this.#chosen.delete(name);
    this.#onChange();
  }
}
