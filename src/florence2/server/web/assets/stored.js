/** What the browser keeps for this page. Storage can be switched off: then nothing is kept, and nothing fails. */

const PREFIX = "florence2.";
const STORES = { tab: () => sessionStorage, browser: () => localStorage };

/**
 * What was kept under a name, or null.
 * @param {"tab"|"browser"} where until the tab is closed, or for good
 * @param {string} name
 * @returns {string|null}
 */
export function recall(where, name) {
  try {
    return STORES[where]().getItem(PREFIX + name);
  } catch {
    return null;
  }
}

/**
 * Keep a text under a name; null forgets it.
 * @param {"tab"|"browser"} where
 * @param {string} name
 * @param {string|null} text
 */
export function remember(where, name, text) {
  try {
    if (text === null) STORES[where]().removeItem(PREFIX + name);
    else STORES[where]().setItem(PREFIX + name, text);
  } catch {
    // this page remembers it by itself
  }
}
