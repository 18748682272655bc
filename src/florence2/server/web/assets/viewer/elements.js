/** Elements with attributes, in HTML and in SVG. Texts go in as text nodes, never as HTML. */

export function html(name, attributes = {}, ...children) {
  return filledIn(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filledIn(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filledIn(element, attributes, children) {
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

/** Set those that changed. */
export function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}
