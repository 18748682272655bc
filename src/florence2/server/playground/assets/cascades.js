/** Which tasks follow from an answer in one click. */

const ABOUT_A_REGION = ["<REGION_TO_DESCRIPTION>", "<REGION_TO_CATEGORY>", "<REGION_TO_SEGMENTATION>", "<REGION_TO_OCR>"];
const ABOUT_WORDS = ["<REGION_TO_OCR>", "<REGION_TO_DESCRIPTION>"];
const CAPTIONS = ["<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>"];

/** The task that finds the phrases of a caption. */
export const GROUNDING = "<CAPTION_TO_PHRASE_GROUNDING>";

/**
 * The tasks that can be asked about one found object.
 * @param {import("./session.js").Layer} layer
 * @returns {string[]} tags; the first is the most natural one
 */
export function tasksAboutObject(layer) {
  return layer.tag === "<OCR_WITH_REGION>" || layer.tag === "<REGION_TO_OCR>" ? ABOUT_WORDS : ABOUT_A_REGION;
}

/**
 * Whether the layer's text is a sentence about the picture, whose phrases can be found in it.
 * @param {import("./session.js").Layer} layer
 */
export function canGround(layer) {
  return CAPTIONS.includes(layer.tag) && layer.state === "done" && layer.answerText !== "";
}

/**
 * An object's box as a region that the server takes: whole pixels inside the picture, at least one wide and high.
 * @param {number[]} box
 * @param {{width: number, height: number}} picture
 * @returns {number[]}
 */
export function regionOf(box, { width, height }) {
  const [x1, x2] = span(box[0], box[2], width);
  const [y1, y2] = span(box[1], box[3], height);
  return [x1, y1, x2, y2];
}

function span(from, to, size) {
  const start = Math.min(Math.max(Math.floor(from), 0), size - 1);
  return [start, Math.min(Math.max(Math.ceil(to), start + 1), size)];
}
