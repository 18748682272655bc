/** Model, key and what is to be known of both: what belongs to the page and not to one question. */
import { byId, make } from "./elements.js";
import { languages, t } from "./i18n.js";
import { recall, remember } from "./stored.js";

const DEMO = "florence-2-demo";
const FOR_PHOTOS = "florence-2-base";

/**
 * Say what is to be known of the model that is chosen.
 * @param {any} config
 */
export function showNotice({ models, default_model: first, notice }) {
  const element = byId("notice");
  const render = () => {
    const isDemo = byId("model").value === DEMO;
    element.hidden = !notice || byId("model").value !== first;
    element.replaceChildren(isDemo ? make("p", { text: t("notice.demo") }) : make("p", { text: notice ?? "", lang: "en" }));
    if (isDemo && models.includes(FOR_PHOTOS)) element.append(make("button", { type: "button", onclick: choose, text: t("notice.use", { model: FOR_PHOTOS }) }));
  };
  const choose = () => {
    byId("model").value = FOR_PHOTOS;
    byId("model").dispatchEvent(new Event("change"));
    byId("model").focus();
    element.hidden = false;
    element.replaceChildren(make("p", { text: t("notice.used", { model: FOR_PHOTOS }) }));
  };
  byId("model").addEventListener("change", render);
  languages.addEventListener("change", render);
  render();
}

/**
 * Offer the models that a request may name.
 * @param {any} config
 */
export function offerModels({ models, default_model: first }) {
  const names = models.includes(first) || !first ? models : [first, ...models];
  byId("model").replaceChildren(...names.map((name) => make("option", { value: name, text: name })));
  const last = recall("tab", "model");
  byId("model").value = names.includes(last) ? last : first || names[0] || "";
  byId("model").addEventListener("change", () => remember("tab", "model", byId("model").value));
}

/**
 * Offer the field for a key, where one is needed. It is kept in this page; in the tab's storage only if the person ticks that.
 * @param {boolean} needsKey
 * @returns {() => string} the key as it stands there
 */
export function offerKey(needsKey) {
  const [field, isKept] = [byId("key"), byId("keep-key")];
  byId("key-row").hidden = !needsKey;
  const stored = recall("tab", "key");
  if (stored) [field.value, isKept.checked] = [stored, true];
  const store = () => remember("tab", "key", isKept.checked ? field.value.trim() : null);
  field.addEventListener("input", store);
  isKept.addEventListener("change", store);
  return () => field.value.trim();
}
