/** What was found in a picture, in words and as the viewer draws it. Knows no elements. */
import { isWanted } from "./address.js";
import { language, t } from "./i18n.js";

/** A whole number as the language writes it. */
export function whole(value) {
  return value.toLocaleString(language());
}

/** A score as whole percent. */
export function percent(score) {
  return `${Math.round(score * 100)} %`;
}

/** What an object is called: what was read or said there, or else its class. */
export function nameOf({ text, label }) {
  return text || label;
}

/** What was found, in one line: classes with their numbers, or else a text answer. */
export function summaryOf({ objects, texts, problem }) {
  if (problem) return problem;
  const counts = new Map();
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  const found = [...counts].map(([label, count]) => (count === 1 ? label : `${whole(count)} ${label}`)).join(", ");
  const said = Object.values(texts).filter((text) => text.trim()).join(" · ");
  return [found, said].filter(Boolean).join(" · ") || t("grid.nothing");
}

/** The lowest score of the objects that the filters are about, or null. */
export function lowestScore({ objects }, filters) {
  const scores = objects.filter((object) => isWanted(object, filters)).map(({ score }) => score).filter(Number.isFinite);
  return scores.length ? Math.min(...scores) : null;
}

/** An object for the viewer: with its text as the label, in the colour of its class. */
export function shownObject(object) {
  return { ...object, label: nameOf(object), group: object.label };
}
