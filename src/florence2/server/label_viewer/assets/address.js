/**
 * What is shown, as the page's address says it: so that it can be kept, sent and gone back to.
 *
 * @typedef {{classes: string[], min: number, max: number, split: string, shown: string, text: string, order: string, picture: string|null}} State
 *   min and max are scores from 0 to 1; picture is the name of the one that is seen large.
 */

export const SHOWN = ["all", "labelled", "empty", "problems"];
export const ORDERS = ["set", "lowest", "highest", "most", "name"];
export const SPLITS = ["", "train", "val"];

/** @returns {State} what an address asks for; what it does not say, or says wrongly, is as at first. */
export function stateOf(search) {
  const words = new URLSearchParams(search);
  const oneOf = (values, name) => (values.includes(words.get(name)) ? words.get(name) : values[0]);
  const score = (name, otherwise) => {
    const value = Number.parseFloat(words.get(name) ?? "");
    return value >= 0 && value <= 1 ? value : otherwise;
  };
  return {
    classes: words.getAll("class"),
    min: score("min_score", 0),
    max: score("max_score", 1),
    split: oneOf(SPLITS, "split"),
    shown: oneOf(SHOWN, "shown"),
    text: words.get("text") ?? "",
    order: oneOf(ORDERS, "order"),
    picture: words.get("picture"),
  };
}

/** The words of the filters alone, as the server takes them too. */
export function filterWords(state) {
  const words = new URLSearchParams();
  for (const name of state.classes) words.append("class", name);
  if (state.min > 0) words.set("min_score", state.min);
  if (state.max < 1) words.set("max_score", state.max);
  if (state.split) words.set("split", state.split);
  if (state.shown !== SHOWN[0]) words.set("shown", state.shown);
  if (state.text.trim()) words.set("text", state.text.trim());
  if (state.order !== ORDERS[0]) words.set("order", state.order);
  return words;
}

/** The address of a state, without the host. */
export function addressOf(state) {
  const words = filterWords(state);
  if (state.picture !== null) words.set("picture", state.picture);
  return `${location.pathname}${words.size ? `?${words}` : ""}`;
}

/** Whether an object is one of those that the filters are about. */
export function isWanted({ label, score }, { classes, min, max }) {
  if (classes.length && !classes.includes(label)) return false;
  if (min > 0 && !(score >= min)) return false;
  return !(max < 1) || score <= max;
}

/** Whether the filters are about objects. */
export function isAboutObjects({ classes, min, max }) {
  return classes.length > 0 || min > 0 || max < 1;
}
