/** The buttons of the view: zoom out, zoom in, show the whole picture, and the scale between them. */

import { html, setAttributes, svg } from "./elements.js";

const ICONS = {
  zoomOut: "M5 12H19",
  zoomIn: "M12 5V19M5 12H19",
  fit: "M4 9V4H9M15 4H20V9M20 15V20H15M9 20H4V15",
};

const LABELS = { zoomOut: "viewer.zoom_out", zoomIn: "viewer.zoom_in", fit: "viewer.fit" };

export class Tools {
  #buttons;

  /** @param {{zoomOut: () => void, zoomIn: () => void, fit: () => void}} actions */
  constructor(actions) {
    this.#buttons = Object.keys(ICONS).map((name) => {
      const button = html("button", { type: "button", class: `viewer-button viewer-${name}` }, iconOf(ICONS[name]));
      button.addEventListener("click", actions[name]);
      return [name, button];
    });
    const [[, zoomOut], [, zoomIn], [, fit]] = this.#buttons;
    this.scale = html("span", { class: "viewer-scale" });
    this.element = html("div", { class: "viewer-tools", role: "group" }, zoomOut, this.scale, zoomIn, fit);
  }

  /** @param {(key: string) => string} text */
  translate(text) {
    setAttributes(this.element, { "aria-label": text("viewer.tools") });
    for (const [name, button] of this.#buttons) {
      const label = text(LABELS[name]);
      setAttributes(button, { "aria-label": label, title: label });
    }
  }

  /** Show the scale of the picture. */
  draw(scale) {
    const percent = scale * 100;
    this.scale.textContent = `${percent < 10 ? percent.toFixed(1) : Math.round(percent)} %`;
  }
}

function iconOf(path) {
  return svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "viewer-icon" }, svg("path", { d: path }));
}
