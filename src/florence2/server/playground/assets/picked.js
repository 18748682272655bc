/** The bar over the picture about the object that was chosen: which tasks can be asked about it. */
import { tasksAboutObject } from "./cascades.js";
import { byId, icon, make } from "./elements.js";
import { t } from "./i18n.js";
import { nameOf } from "./layer_card.js";

export class Picked {
  #element = byId("picked");
  #ask;
  #about = { layer: null, index: 0 };
  /** @type {HTMLElement|null} what had the focus before */
  #from = null;

  /** @param {(tag: string, layer: any, index: number) => void} ask */
  constructor(ask) {
    this.#ask = ask;
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
  }

  /**
   * Offer the tasks about an object.
   * @param {import("./session.js").Layer} layer
   * @param {number} index
   * @param {boolean} isByKeyboard then the focus goes to the first task
   */
  open(layer, index, isByKeyboard) {
    const label = nameOf(layer.objects[index].label, index);
    this.#about = { layer, index };
    this.#from = document.activeElement;
    this.#element.setAttribute("aria-label", t("object.picked", { label }));
    const buttons = tasksAboutObject(layer).map((tag) => this.#button(tag, layer, index));
    const close = make("button", { type: "button", class: "quiet icon-only", "aria-label": t("object.close"), onclick: () => this.close() }, icon("close"));
    this.#element.replaceChildren(make("span", { class: "picked-label", text: label, title: label }), ...buttons, close);
    this.#element.hidden = false;
    if (isByKeyboard) buttons[0].focus();
  }

  /**
   * Take the bar away if its object is not seen any more.
   * @param {any[]} layers those that there are
   */
  keepIfSeen(layers) {
    const { layer, index } = this.#about;
    if (!layer?.isVisible || !layers.includes(layer) || !layer.objects[index]) this.close();
  }

  /** Take the bar away; a focus in it goes back to where it came from. */
  close() {
    const hadFocus = this.#element.contains(document.activeElement);
    this.#element.hidden = true;
    if (hadFocus && this.#from?.isConnected) this.#from.focus({ preventScroll: true });
    this.#from = null;
  }

  #button(tag, layer, index) {
    const word = tag.slice(1, -1);
    const onclick = () => {
      this.close();
      this.#ask(tag, layer, index);
    };
    return make("button", { type: "button", "data-testid": `follow-${word}`, onclick, text: t(`follow.${word}`) });
  }
}
