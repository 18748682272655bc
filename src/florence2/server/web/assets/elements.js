/** Making elements. Text always goes in as text: nothing here or elsewhere in the page reads HTML from a string. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element with its attributes and children.
 * @param {string} tag
 * @param {Record<string, string|number|boolean|null|undefined|Function>} [attributes] `text` is its text; a function under
 *   `onclick` and the like becomes a listener; false, null and undefined are left out, true is an empty attribute.
 * @param {...(Node|string|null|undefined)} children
 * @returns {HTMLElement}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") element.textContent = String(value);
    else if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * An icon of the page's sheet, unseen by screen readers.
 * @param {string} name without "i-"
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/**
 * The element of the page with an id.
 * @param {string} id
 * @returns {any} it is there: `index.html` has it
 */
export function byId(id) {
  return document.getElementById(id);
}

/**
 * Say something to screen readers, once.
 * @param {string} text
 */
export function announce(text) {
  const live = byId("live");
  live.textContent = "";
  setTimeout(() => (live.textContent = text), 50); // a change from empty is read even where the text is the same
}
