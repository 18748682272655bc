/** Copying text, said on the button that was pressed. */
import { announce } from "./elements.js";
import { t } from "./i18n.js";

/**
 * Copy a text and say so.
 * @param {string} text
 * @param {HTMLElement} button its words change for a moment
 */
export async function copyText(text, button) {
  const isCopied = await written(text);
  const words = button.querySelector("span") ?? button;
  const before = words.dataset.before ?? words.textContent;
  words.dataset.before = before;
  words.textContent = t(isCopied ? "code.copied" : "code.not_copied");
  announce(words.textContent);
  setTimeout(() => {
    words.textContent = before;
    delete words.dataset.before;
  }, 2000);
}

/** Pages over plain http have no clipboard but the old way: a selected field. */
async function written(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedBySelection(text);
  }
}

function copiedBySelection(text) {
  const before = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  (document.querySelector("dialog[open]") ?? document.body).append(field); // behind an open dialog nothing can be selected
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  before?.focus?.();
  return isCopied;
}
