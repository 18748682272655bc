/**
 * The drawing as a file: the picture in its own pixels, with outlines and labels as they are on the screen.
 *
 * In: a picture and the entries that are shown. Out: a PNG. Knows nothing of the view.
 */

import { lettersOn } from "./colors.js";
import { pathData } from "./geometry.js";
import { percent, placeLabels } from "./labels.js";

const USUAL_SIDE = 700; // pixels of a picture whose lines and letters are as large as on the screen
const SMALLEST_PEN = 0.7;
const FONT_SIZE = 13;
const PADDING = 6;
const SMALLEST_SCALE = 1 / 64;

/**
 * The drawing.
 *
 * @param {import("./picture.js").Picture} picture
 * @param {import("./overlay.js").Entry[]} entries
 * @returns {Promise<Blob & {scale: number}>} scale: 1, or less where the browser has no canvas as large as the picture.
 */
export async function drawingOf(picture, entries) {
  for (let scale = 1; scale >= SMALLEST_SCALE; scale /= 2) {
    const canvas = canvasOf(picture, scale);
    if (!canvas) continue;
    draw(canvas, entries, scale);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    if (blob) return Object.assign(blob, { scale });
  }
  throw new Error("the browser has no canvas for a drawing of this picture");
}

/** A canvas with the picture, or null: too large ones stay empty, without an error in some browsers. */
function canvasOf(picture, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext("2d");
  try {
    context.fillStyle = "#FFFFFF";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture.source, 0, 0, canvas.width, canvas.height);
    return context.getImageData(canvas.width - 1, canvas.height - 1, 1, 1).data[3] ? canvas : null;
  } catch {
    return null;
  }
}

function draw(canvas, entries, scale) {
  const context = canvas.getContext("2d");
  const pen = Math.max(SMALLEST_PEN, Math.min(canvas.width, canvas.height) / USUAL_SIDE);
  context.font = `600 ${Math.round(FONT_SIZE * pen)}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const entry of entries) outline(context, entry, scale, pen);
  const plates = entries.map((entry) => plateOf(context, entry, scale, pen)).filter(({ text }) => text);
  const positions = placeLabels(plates, canvas);
  plates.forEach((plate, index) => positions[index] && label(context, plate, positions[index], pen));
}

function outline(context, { shape, color }, scale, pen) {
  const path = new Path2D();
  path.addPath(new Path2D(pathData(shape.rings)), new DOMMatrix([scale, 0, 0, scale, 0, 0]));
  context.fillStyle = `${color}4D`; // 0.3 opaque
  if (shape.kind === "polygons") context.fill(path, "evenodd");
  context.lineJoin = shape.kind === "box" ? "miter" : "round";
  context.lineCap = "round";
  const line = 2 * Math.max(1, Math.round(pen)); // even, so that the sides of boxes are on whole pixels
  for (const [stroke, width] of [[lettersOn(color), 2 * line], [color, line]]) {
    context.strokeStyle = stroke;
    context.lineWidth = width;
    context.stroke(path);
  }
}

function plateOf(context, { object, text: name, shape, color }, scale, pen) {
  const score = percent(object.score);
  const room = context.canvas.width - 2 * PADDING * pen;
  const text = fitted(context, name, score, room);
  const width = Math.min(Math.ceil(context.measureText(text).width + 2 * PADDING * pen), context.canvas.width);
  const box = shape.box.map((value) => value * scale);
  return { text, color, width, height: Math.round(FONT_SIZE * 1.65 * pen), box, score: object.score };
}

/** A label with its score, cut until it fits. */
function fitted(context, name, score, room) {
  const whole = `${name} ${score}`.trim();
  if (context.measureText(whole).width <= room) return whole;
  const characters = Array.from(name);
  while (characters.length > 1 && context.measureText(`${characters.join("")}… ${score}`.trim()).width > room) characters.pop();
  return `${characters.join("")}… ${score}`.trim();
}

function label(context, { text, color, width, height }, [x, y], pen) {
  context.fillStyle = color;
  context.fillRect(Math.round(x), Math.round(y), width, height);
  context.fillStyle = lettersOn(color);
  context.fillText(text, Math.round(x) + PADDING * pen, Math.round(y) + height / 2, width - PADDING * pen);
}
