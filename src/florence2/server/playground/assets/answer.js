/** From an answer of `/infer/lmm` to objects and text. Pure functions; nothing here touches the page. */

/**
 * The objects of one prompt's answer.
 * @param {any} value what stands under the task: a string or the lists of what was found
 * @param {string} label for objects that the task leaves without one
 * @returns {import("./session.js").FoundObject[]}
 */
export function objectsOf(value, label) {
  if (value === null || typeof value !== "object") return [];
  const polygons = value.polygons ?? [];
  const shapes = polygons.length ? polygons : value.quad_boxes ?? value.bboxes ?? [];
  const labels = (polygons.length ? value.polygons_labels : value.bboxes_labels) ?? value.labels ?? [];
  return shapes.map((shape, index) => {
    const object = { label: labels[index] || label, ...shaped(shape, polygons.length > 0, Boolean(value.quad_boxes)) };
    if (value.scores) object.score = value.scores[index];
    return object;
  });
}

function shaped(shape, isPolygons, isQuad) {
  if (isPolygons) return { box: around(shape.flat()), polygons: shape };
  return isQuad ? { box: around(shape), quad: shape } : { box: shape };
}

/** The smallest box around points x, y, x, y, …; without any, a box of nothing. */
function around(numbers) {
  const [xs, ys] = [0, 1].map((axis) => numbers.filter((_, index) => index % 2 === axis));
  return xs.length ? [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)] : [0, 0, 0, 0];
}

/**
 * Text as a person reads it: without the places that some answers end in, half-written ones included.
 * @param {string} text
 */
export function readable(text) {
  return text.replace(/<loc_\d*>?/g, "").replace(/<(l(o(c)?)?)?$/, "").trim();
}

/**
 * Each prompt's answer in a whole answer, in order.
 * @param {any} answer
 * @returns {any[]} strings and lists of objects
 */
export function valuesOf(answer) {
  const responses = Array.isArray(answer.response) ? answer.response : [answer.response];
  return responses.map((response) => Object.values(response)[0]);
}

/**
 * What several prompts took together.
 * @param {any} usage of one prompt, or a list
 * @returns {{completion_tokens: number, image_cached: boolean}|null}
 */
export function totalUsage(usage) {
  const parts = [usage].flat().filter(Boolean);
  if (!parts.length) return null;
  const tokens = parts.reduce((sum, part) => sum + part.completion_tokens, 0);
  return { completion_tokens: tokens, image_cached: Boolean(parts[0].image_cached) };
}

/**
 * Whether any prompt's answer was cut off at its longest.
 * @param {any} raw what the answer says under that name, if anything
 */
export function isCutOff(raw) {
  return [raw].flat().some((part) => part?.finish_reason === "length");
}
