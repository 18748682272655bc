/**
 * The language of the page: which one it is, and its words from the table in the page's `words.js`.
 *
 * Text in `index.html` carries `data-i18n="key"` (its text), `data-i18n-label` (aria-label), `data-i18n-placeholder` or
 * `data-i18n-title`; `translate` fills it in. Whatever a module writes itself it asks for with `t`, and writes again when
 * `languages` sends "change".
 */
import { recall, remember } from "./stored.js";
import { WORDS } from "./words.js";

const COLUMNS = { en: 0, ko: 1 };
const ATTRIBUTES = { i18nLabel: "aria-label", i18nPlaceholder: "placeholder", i18nTitle: "title" };

/** Sends "change" whenever the language was changed. */
export const languages = new EventTarget();

let current = firstLanguage();

function firstLanguage() {
  const chosen = recall("browser", "language") ?? navigator.language ?? "en";
  return chosen.toLowerCase().startsWith("ko") ? "ko" : "en";
}

/** @returns {"en"|"ko"} the language of the page. */
export function language() {
  return current;
}

/**
 * Change the language of the whole page and remember it.
 * @param {"en"|"ko"} name
 */
export function setLanguage(name) {
  current = name;
  remember("browser", "language", name);
  translate(document.documentElement);
  languages.dispatchEvent(new Event("change"));
}

/**
 * The words for a key, with `{name}` replaced by values.
 * @param {string} key
 * @param {Record<string, string|number>} [values] `count` chooses between "key.one" and "key".
 * @returns {string}
 */
export function t(key, values = {}) {
  const row = (values.count === 1 && WORDS[`${key}.one`]) || WORDS[key];
  if (row === undefined) return key;
  return row[COLUMNS[current]].replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

/**
 * Whether the table has words for a key.
 * @param {string} key
 */
export function hasWords(key) {
  return Object.hasOwn(WORDS, key);
}

/**
 * All words whose keys begin with a prefix, in the current language.
 * @param {string} prefix such as "viewer."
 * @returns {Record<string, string>} by their whole keys.
 */
export function messages(prefix) {
  const keys = Object.keys(WORDS).filter((key) => key.startsWith(prefix));
  return Object.fromEntries(keys.map((key) => [key, WORDS[key][COLUMNS[current]]]));
}

/**
 * Fill in the words of an element and everything in it.
 * @param {Element} root
 */
export function translate(root) {
  document.documentElement.lang = current;
  for (const element of root.querySelectorAll("[data-i18n]")) element.textContent = t(element.dataset.i18n);
  for (const [name, attribute] of Object.entries(ATTRIBUTES)) {
    const selector = `[data-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}]`;
    for (const element of root.querySelectorAll(selector)) element.setAttribute(attribute, t(element.dataset[name]));
  }
}

/**
 * A number with a fixed number of digits behind the point, as the language writes it.
 * @param {number} value
 * @param {number} digits
 */
export function decimal(value, digits) {
  return value.toLocaleString(current, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/**
 * A number of bytes for people, such as "61 MB".
 * @param {number} bytes
 */
export function megabytes(bytes) {
  return `${decimal(bytes / 2 ** 20, bytes < 10 * 2 ** 20 ? 1 : 0)} MB`;
}
