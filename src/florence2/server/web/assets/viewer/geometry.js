/**
 * Shapes of objects in pixels of the picture: outlines, the boxes around them, their areas, and whether a point is on them.
 *
 * In: objects as the API gives them. Out: shapes. Knows nothing of the screen and of elements.
 */

/**
 * The shape of an object.
 *
 * @param {{box?: number[], quad?: number[], polygons?: number[][]}} object as the API gives it; polygons go before the quad, and both before the box.
 * @returns {{kind: "box"|"quad"|"polygons", rings: number[][], box: number[], area: number}|null} rings are closed lines x, y, x, y, …, filled
 *   by the even–odd rule; null if there is no finite coordinate.
 */
export function shapeOf(object) {
  for (const kind of ["polygons", "quad", "box"]) {
    const rings = ringsOf(kind, object[kind]);
    if (rings.length) return { kind, rings, box: boxAround(rings), area: rings.reduce((sum, ring) => sum + ringArea(ring), 0) };
  }
  return null;
}

function ringsOf(kind, value) {
  if (!Array.isArray(value)) return [];
  const rings = kind === "polygons" ? value : [kind === "box" ? cornersOf(value) : value];
  return rings.filter(Array.isArray).map(finitePairs).filter((ring) => ring.length >= 2);
}

/** The corners of a box, clockwise from the upper left, whichever two opposite corners it is given by. */
export function cornersOf(box) {
  const [left, top, right, bottom] = ordered(box);
  return [left, top, right, top, right, bottom, left, bottom];
}

/** A box with its left side left and its upper side above. */
export function ordered([x1, y1, x2, y2]) {
  return [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2), Math.max(y1, y2)];
}

function finitePairs(ring) {
  const pairs = [];
  for (let index = 0; index + 1 < ring.length; index += 2) {
    if (Number.isFinite(ring[index]) && Number.isFinite(ring[index + 1])) pairs.push(ring[index], ring[index + 1]);
  }
  return pairs;
}

function boxAround(rings) {
  const box = [Infinity, Infinity, -Infinity, -Infinity];
  for (const ring of rings) {
    for (let index = 0; index < ring.length; index += 2) {
      box[0] = Math.min(box[0], ring[index]);
      box[1] = Math.min(box[1], ring[index + 1]);
      box[2] = Math.max(box[2], ring[index]);
      box[3] = Math.max(box[3], ring[index + 1]);
    }
  }
  return box;
}

/** The area within a closed line. */
export function ringArea(ring) {
  let sum = 0;
  for (const [x1, y1, x2, y2] of edgesOf(ring)) sum += x1 * y2 - x2 * y1;
  return Math.abs(sum) / 2;
}

function* edgesOf(ring) {
  for (let index = 0; index < ring.length; index += 2) {
    const next = (index + 2) % ring.length;
    yield [ring[index], ring[index + 1], ring[next], ring[next + 1]];
  }
}

/** The ``d`` attribute of an SVG path along the rings of a shape. */
export function pathData(rings) {
  return rings.map((ring) => `M${ring[0]} ${ring[1]}L${ring.slice(2).join(" ") || `${ring[0]} ${ring[1]}`}Z`).join("");
}

/**
 * Whether a point is inside a shape or near its outline.
 *
 * @param {number} tolerance the largest distance from the outline, in pixels of the picture.
 */
export function isOn(shape, [x, y], tolerance) {
  const [left, top, right, bottom] = shape.box;
  if (x < left - tolerance || x > right + tolerance || y < top - tolerance || y > bottom + tolerance) return false;
  return isInside(shape.rings, x, y) || shape.rings.some((ring) => distanceTo(ring, x, y) <= tolerance);
}

function isInside(rings, x, y) {
  let isOdd = false;
  for (const ring of rings) {
    for (const [x1, y1, x2, y2] of edgesOf(ring)) {
      if (y1 > y !== y2 > y && x < x1 + ((y - y1) / (y2 - y1)) * (x2 - x1)) isOdd = !isOdd;
    }
  }
  return isOdd;
}

function distanceTo(ring, x, y) {
  let nearest = Infinity;
  for (const [x1, y1, x2, y2] of edgesOf(ring)) {
    const [dx, dy] = [x2 - x1, y2 - y1];
    const part = Math.min(1, Math.max(0, ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1)));
    nearest = Math.min(nearest, Math.hypot(x - x1 - part * dx, y - y1 - part * dy));
  }
  return nearest;
}

/**
 * A region in whole pixels inside the picture, at least one pixel wide and high.
 *
 * @param {number[]} box any two opposite corners x, y, x, y.
 * @param {{width: number, height: number}} picture
 */
export function regionWithin(box, picture) {
  const [x1, y1, x2, y2] = ordered(box);
  const [left, right] = spanWithin(x1, x2, picture.width);
  const [top, bottom] = spanWithin(y1, y2, picture.height);
  return [left, top, right, bottom];
}

function spanWithin(low, high, length) {
  const first = Math.min(Math.max(Math.round(low), 0), length - 1);
  return [first, Math.min(Math.max(Math.round(high), first + 1), length)];
}

/** A value moved to the nearest end of a range if it is outside. */
export function clamped(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
