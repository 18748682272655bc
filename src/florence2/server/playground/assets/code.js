/** The dialog that shows the chosen request as code to copy. */
import { ROOT } from "./api.js";
import { byId } from "./elements.js";
import { languages, t } from "./i18n.js";
import * as snippets from "./snippets.js";
import { recall, remember } from "./stored.js";
import { fill } from "./tasks.js";

const KINDS = ["curl", "python", "inferenceSdk", "openai", "json"];
const OPTIONS = ["num_beams", "max_new_tokens", "scores", "allow_unknown_tag"];

export class CodeDialog {
  #dialog = byId("code");
  #kind = KINDS.find((kind) => kind === recall("tab", "code")) ?? "curl";
  /** @type {any} what the snippets are made of */
  #request = null;

  /** @param {(text: string, button: HTMLElement) => void} copy */
  constructor(copy) {
    byId("code-close").addEventListener("click", () => this.#dialog.close());
    byId("code-copy").addEventListener("click", () => copy(byId("code-text").textContent, byId("code-copy")));
    byId("code-kinds").addEventListener("change", (event) => {
      this.#kind = event.target.value;
      remember("tab", "code", this.#kind);
      this.#render();
    });
    this.#dialog.addEventListener("click", (event) => this.#closeIfBeside(event));
    languages.addEventListener("change", () => this.#request && this.#render());
  }

  /**
   * Show a request as code.
   * @param {import("./ask.js").Question} question
   * @param {import("./tasks.js").Task} task
   * @param {import("./picture.js").Picture} picture
   * @param {boolean} needsKey
   */
  open({ texts, region, request }, task, picture, needsKey) {
    const { model_id: model, prompt } = request;
    const options = Object.fromEntries(OPTIONS.filter((option) => option in request).map((option) => [option, request[option]]));
    const { link, name: imageName, width, height } = picture;
    this.#request = {
      address: ROOT.href.replace(/\/$/, ""), model, tag: task.tag ?? prompt, kind: task.kind, region, options, needsKey, width, height,
      text: task.tag === null ? null : texts[0], numTexts: texts.length, isScaled: picture.change === "scaled", ...(link ? { imageUrl: link } : { imageName }),
    };
    this.#render();
    this.#dialog.showModal();
  }

  #closeIfBeside({ target, clientX: x, clientY: y }) {
    const { left, right, top, bottom } = this.#dialog.getBoundingClientRect();
    if (target === this.#dialog && (x < left || x > right || y < top || y > bottom)) this.#dialog.close();
  }

  #render() {
    const { address, imageName, needsKey, numTexts, isScaled, width, height } = this.#request;
    fill(byId("code-kinds"), "code", KINDS.map((kind) => [kind, t(`code.${kind}`)]), this.#kind);
    byId("code-text").textContent = snippets[this.#kind](this.#request);
    const isBody = this.#kind === "json";
    byId("code-note").textContent = [
      isBody ? t("code.note_json", { address: `${address}/infer/lmm` }) : imageName ? t("code.note", { name: imageName }) : t("code.note_link"),
      isScaled && t("code.scaled", { width, height }),
      needsKey && !isBody && t("code.key"),
      numTexts > 1 && t("code.first"),
    ].filter(Boolean).join(" ");
  }
}
