/** What is said beside a large picture: where it came from, texts about it, and its objects. Makes elements, keeps none. */
import { make } from "./elements.js";
import { nameOf, percent, whole } from "./found.js";
import { t } from "./i18n.js";

const MAX_ROWS = 500;
const LONG = 400; // characters of a text that would push the objects out of sight

/** Short texts about a picture, and what went wrong with it: what stands before its objects. */
export function textsOf({ problem, texts, objects }) {
  const short = Object.entries(texts).filter(([, text]) => text.length <= LONG);
  return described([[t("fact.problem"), problem], ...short, [t("fact.objects"), objects.length || problem ? "" : t("grid.nothing")]]);
}

/** Where a picture comes from, its place in the data set, and long texts. */
export function factsOf({ where, size, split, texts }) {
  const long = Object.entries(texts).filter(([, text]) => text.length > LONG);
  return described([[t("fact.size"), size && `${whole(size[0])} × ${whole(size[1])}`], [t("fact.split"), split], [t("fact.where"), where], ...long]);
}

function described(rows) {
  return rows.filter(([, text]) => text).map(([term, text]) => make("div", {}, make("dt", { text: term }), make("dd", { text, dir: "auto" })));
}

/**
 * A row for each object.
 * @param {any[]} objects
 * @param {(label: string) => string} colorOf
 * @param {(index: number|null) => void} point called when a row is pointed at
 */
export function objectRows(objects, colorOf, point) {
  const rows = objects.slice(0, MAX_ROWS).map((object, index) => {
    const dot = make("span", { class: "dot", "aria-hidden": "true" });
    dot.style.background = colorOf(object.label);
    const name = make("span", { class: "object-name", dir: "auto", text: nameOf(object) });
    const score = Number.isFinite(object.score) ? make("span", { class: "object-score", text: percent(object.score) }) : null;
    return make("li", { class: "object", "data-testid": "object", onmouseenter: () => point(index), onmouseleave: () => point(null) }, dot, name, score);
  });
  if (objects.length > MAX_ROWS) rows.push(make("li", { class: "hint", text: t("large.more_objects", { count: whole(objects.length - MAX_ROWS) }) }));
  return rows;
}
