/**
 * The picture, decoded once and kept in several sizes, so that each frame costs as much as the view has pixels, however large the picture is.
 *
 * In: a URL that the page may load as an image. Out: pixels on a canvas. Knows nothing of objects.
 */

const SMALLEST_LEVEL = 1024; // pixels of the longer side below which no smaller level is made
const SHARP_SCALE = 4; // device pixels per pixel of the picture from which single pixels are shown as squares

export class Picture {
  #levels;

  constructor(levels, { name, width, height }) {
    this.#levels = levels; // the whole picture, then half of it in each direction, and so on
    this.name = name;
    this.width = width;
    this.height = height;
  }

  /**
   * Load and decode a picture; EXIF orientation is applied.
   *
   * @param {{url: string, name?: string, width?: number, height?: number}} source width and height are those in which objects are given; the
   *   picture's own if left out.
   */
  static async load({ url, name = "", width, height }) {
    const image = new Image();
    image.decoding = "async";
    image.src = url;
    await image.decode();
    const size = { name, width: width || image.naturalWidth, height: height || image.naturalHeight };
    return new Picture(await levelsOf(image), size);
  }

  /** The whole picture, for ``drawImage``. */
  get source() {
    return this.#levels[0];
  }

  /**
   * Draw what the camera sees.
   *
   * @param {CanvasRenderingContext2D} context of a canvas as large as the view in device pixels.
   * @param {number} ratio device pixels per pixel of the view.
   */
  draw(context, camera, ratio) {
    const scale = camera.scale * ratio;
    const level = this.#levelFor(this.width * scale);
    const [fx, fy] = [level.width / this.width, level.height / this.height];
    const [x1, y1] = camera.toPicture([0, 0]);
    const [x2, y2] = camera.toPicture([camera.view.width, camera.view.height]);
    const left = Math.max(0, Math.floor(x1 * fx));
    const top = Math.max(0, Math.floor(y1 * fy));
    const width = Math.min(level.width, Math.ceil(x2 * fx)) - left;
    const height = Math.min(level.height, Math.ceil(y2 * fy)) - top;
    if (width <= 0 || height <= 0) return;
    const [x, y] = [camera.x * ratio + (left / fx) * scale, camera.y * ratio + (top / fy) * scale];
    context.fillStyle = "#FFFFFF"; // behind transparent pixels, as for the model
    context.fillRect(x, y, (width / fx) * scale, (height / fy) * scale);
    context.imageSmoothingEnabled = scale / (this.#levels[0].width / this.width) < SHARP_SCALE;
    context.imageSmoothingQuality = "high";
    context.drawImage(level, left, top, width, height, x, y, (width / fx) * scale, (height / fy) * scale);
  }

  /** Free the memory. */
  close() {
    for (const level of this.#levels) level.close?.();
  }

  #levelFor(width) {
    return this.#levels.findLast((level) => level.width >= width) ?? this.#levels[0];
  }
}

async function levelsOf(image) {
  const levels = [await createImageBitmap(image).catch(() => image)];
  let { width, height } = levels[0];
  while (Math.max(width, height) > SMALLEST_LEVEL) {
    [width, height] = [Math.max(1, Math.round(width / 2)), Math.max(1, Math.round(height / 2))];
    const size = { resizeWidth: width, resizeHeight: height, resizeQuality: "medium" };
    const smaller = await createImageBitmap(levels.at(-1), size).catch(() => null);
    if (!smaller) break;
    levels.push(smaller);
  }
  return levels;
}
