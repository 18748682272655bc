/**
 * Labels: the text that is shown, and where there is room for it.
 *
 * In: labels as the model wrote them, boxes on a canvas or in a view. Out: short texts on one line, and positions. Knows nothing of elements.
 */

import { clamped } from "./geometry.js";

const MAX_CHARS = 40;
const LARGEST_SHARE = 0.25; // of the view that labels may cover, so that the picture is seen between them
const COVERING_COST = 24; // of covering a whole object, in steps down the list of places
const MOST_COVERED = 0.6; // of an object, or of several together: a label that hides more is left out
// Controls, and characters that turn, hide or break what stands beside them.
const UNSEEN = /[\p{Cc}\p{Zl}\p{Zp}\u00AD\u061C\u200B\u200E\u200F\u202A-\u202E\u2060-\u2069\uFEFF\uFFF9-\uFFFB]+/gu;
const LONE_SURROGATES = /\p{Surrogate}/gu;

const characters = new Intl.Segmenter(undefined, { granularity: "grapheme" });

/** A label on one line, without characters that have no appearance. */
export function plainText(label) {
  return String(label ?? "").replace(LONE_SURROGATES, "\uFFFD").replace(UNSEEN, " ").replace(/\s+/g, " ").trim();
}

/** The same, cut after 40 characters. */
export function shortText(label) {
  const text = plainText(label);
  const shown = [];
  for (const { segment } of characters.segment(text.slice(0, MAX_CHARS * 12))) {
    if (shown.length === MAX_CHARS) return `${shown.slice(0, -1).join("").trimEnd()}…`;
    shown.push(segment);
  }
  return shown.join("");
}

/** A score as whole percent, or "" if there is none. */
export function percent(score) {
  return Number.isFinite(score) ? `${Math.round(score * 100)} %` : "";
}

/**
 * Positions of labels: at their objects, inside the view, and apart from each other.
 *
 * @param {{box: number[], width: number, height: number, score?: number, isNeeded?: boolean}[]} items the box of each label's object and the
 *   label's size, in pixels of the view; the highest scores come first. A label that is needed gets a position even over others, and
 *   no label moves when it becomes needed: it may be because the pointer is on it.
 * @param {{width: number, height: number}} view
 * @param {number[][]} taken boxes that must stay free.
 * @returns {(number[]|null)[]} x and y of each label's upper left corner; null if its object is out of sight, or if there is no room.
 */
export function placeLabels(items, view, taken = []) {
  const placed = [...taken];
  const positions = items.map(() => null);
  let room = view.width * view.height * LARGEST_SHARE;
  for (const index of byImportance(items)) {
    const { box, width, height, isNeeded } = items[index];
    const hasRoom = room >= width * height;
    if (!isSeen(box, view) || !(hasRoom || isNeeded)) continue;
    const plates = cornersAt(box, width, height, view).map(([x, y]) => [x, y, x + width, y + height]);
    const free = hasRoom ? cheapest(plates, placed, items) : null;
    const plate = free ?? (isNeeded ? plates[0] : null);
    if (plate) positions[index] = plate.slice(0, 2);
    if (!free) continue;
    room -= width * height;
    placed.push(free);
  }
  return positions;
}

function byImportance(items) {
  return items.map((_, index) => index).sort((one, other) => (items[other].score ?? 0) - (items[one].score ?? 0));
}

function isSeen([left, top, right, bottom], view) {
  return right > 0 && bottom > 0 && left < view.width && top < view.height;
}

/** The free plate that stands at the best place and covers the least of the objects. */
function cheapest(plates, placed, items) {
  let [best, least] = [null, Infinity];
  plates.forEach((plate, rank) => {
    if (rank >= least || placed.some((other) => shared(plate, other) > 0)) return;
    const covered = items.reduce((sum, { box }) => sum + shared(plate, box) / Math.max(areaOf(box), 1), 0);
    const cost = rank + COVERING_COST * covered;
    if (cost < least && covered <= MOST_COVERED) [best, least] = [plate, cost];
  });
  return best;
}

/** The area that two boxes share. */
function shared(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  return width > 0 && height > 0 ? width * height : 0;
}

function areaOf([left, top, right, bottom]) {
  return (right - left) * (bottom - top);
}

/** Where a label may be, the best first: above its object, within it, below it, beside it. */
function cornersAt(box, width, height, view) {
  const [left, right] = [Math.max(box[0], 0), Math.min(box[2], view.width)];
  const [top, bottom] = [Math.max(box[1], 0), Math.min(box[3], view.height)];
  const corners = [
    [left, top - height],
    [left, top],
    [right - width, top - height],
    [left, bottom],
    [right - width, top],
    [left, bottom - height],
    [right - width, bottom],
    [right - width, bottom - height],
    [right, (top + bottom - height) / 2],
    [left - width, (top + bottom - height) / 2],
  ];
  return corners.map(([x, y]) => [clamped(x, 0, Math.max(0, view.width - width)), clamped(y, 0, Math.max(0, view.height - height))]);
}
