/**
 * Answers as files: COCO, and how a file is saved.
 *
 * In: layers as the viewer shows them. Out: objects for JSON, downloads. Knows nothing of the page.
 */

import { ringArea, shapeOf } from "./viewer/geometry.js";

const UNNAMED = "object"; // the category of objects without a label
const REVOKE_AFTER_MS = 60_000;

/**
 * The objects of the visible layers as a COCO data set of one picture.
 *
 * @param {{name: string, width: number, height: number, layers: {visible?: boolean, objects: object[]}[]}} answers
 * @returns {object} ``segmentation`` is empty for plain boxes; ``score`` is there where an object has one, as in COCO's results.
 */
export function toCoco({ name, width, height, layers }) {
  const found = layers
    .filter(({ visible }) => visible !== false)
    .flatMap(({ objects }) => objects ?? [])
    .map((object) => ({ object, shape: shapeOf(object), label: categoryOf(object) }))
    .filter(({ shape }) => shape !== null);
  const names = [...new Set(found.map(({ label }) => label))].sort();
  return {
    info: { description: "Answers of Florence-2" },
    licenses: [],
    images: [{ id: 1, file_name: name, width, height }],
    categories: names.map((label, index) => ({ id: index + 1, name: label })),
    annotations: found.map(({ object, shape, label }, index) => ({
      id: index + 1,
      image_id: 1,
      category_id: names.indexOf(label) + 1,
      ...placeOf(object, shape),
      iscrowd: 0,
      ...(Number.isFinite(object.score) ? { score: object.score } : {}),
    })),
  };
}

function categoryOf({ label }) {
  return String(label ?? "").trim() || UNNAMED;
}

function placeOf(object, shape) {
  const [left, top, right, bottom] = (shapeOf({ box: object.box }) ?? shape).box;
  const rings = shape.kind === "box" ? [] : shape.rings.filter((ring) => ring.length >= 6);
  const area = rings.length ? rings.reduce((sum, ring) => sum + ringArea(ring), 0) : (right - left) * (bottom - top);
  return { bbox: [left, top, right - left, bottom - top], segmentation: rings, area };
}

/** Let the browser save a file. */
export function download(blob, fileName) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = fileName;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), REVOKE_AFTER_MS);
}
