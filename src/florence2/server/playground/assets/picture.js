/**
 * From a file to a picture that the browser shows and the server reads alike.
 *
 * Most files stay as they are. A copy is made where the two could differ or the server would refuse: more bytes or pixels than it takes,
 * formats that only browsers read (HEIC, SVG), animations (the first frame), and EXIF orientations outside of JPEG, which not every
 * browser follows. What is shown is always what is sent.
 */
import { PageError } from "./errors.js";
import { megabytes, t } from "./i18n.js";

/**
 * @typedef {{name: string, blob: Blob, url: string, thumbnailUrl: string, width: number, height: number, link: string|null, isExample: boolean,
 *   change: null|"scaled"|"converted", originalBytes: number, originalPixels: number[]|null, numFiles?: number}} Picture `originalPixels`: where
 *   these are too many; `numFiles`: of how many files it is the first.
 */

const SPACE_FOR_FIELDS = 64 * 1024; // of a body, for everything in it but the picture
const LONGEST_SIDE_OF_COPY = 4096;
const SHORTEST_SIDE_OF_COPY = 32; // no picture is worth sending below this
const THUMBNAIL_SIDE = 144;
const SEARCHED_BYTES = 256 * 1024;

/**
 * What a person should know of a picture: its size, and whether it is a copy.
 * @param {Picture} picture
 */
export function describe({ name, width, height, change, originalBytes, originalPixels, numFiles = 1 }) {
  const size = originalPixels ? `${originalPixels[0]} × ${originalPixels[1]}` : megabytes(originalBytes);
  const opened = change === "scaled" ? t("picture.scaled", { name, width, height, size }) : t("picture.opened", { name, width, height });
  return [
    opened,
    change === "converted" && t("picture.converted", { name }),
    numFiles > 1 && t("picture.first_only", { count: numFiles }),
  ].filter(Boolean).join(" · ");
}

/**
 * Free a picture's memory.
 * @param {Picture} picture
 */
export function closePicture(picture) {
  URL.revokeObjectURL(picture.url);
  URL.revokeObjectURL(picture.thumbnailUrl);
}

/**
 * A picture of a file's bytes.
 * @param {Blob} file
 * @param {string} name
 * @param {{maxBodyBytes: number, maxPixels: number, link?: string|null, isExample?: boolean}} limits
 * @returns {Promise<Picture>}
 * @throws {PageError} where the browser can't show it
 */
export async function openPicture(file, name, { maxBodyBytes, maxPixels, link = null, isExample = false }) {
  if (file instanceof File && file.size <= maxImageBytes(maxBodyBytes)) file = await inMemory(file);
  const head = new Uint8Array(await file.slice(0, SEARCHED_BYTES).arrayBuffer());
  const format = formatOf(head);
  const image = await decode(file, name, format);
  const { naturalWidth: width, naturalHeight: height } = image;
  const originalPixels = width * height > maxPixels ? [width, height] : null;
  const isTooLarge = file.size > maxImageBytes(maxBodyBytes) || originalPixels !== null;
  const given = { name, link, isExample, originalBytes: file.size, originalPixels, thumbnailUrl: await thumbnailOf(image) };
  if (!isTooLarge && format !== null && !mayDiffer(head, format)) {
    return { ...given, blob: file, url: image.src, width, height, change: null };
  }
  const copy = await copied(image, isTooLarge, maxImageBytes(maxBodyBytes), maxPixels);
  URL.revokeObjectURL(image.src);
  return { ...given, ...copy, link: null, isExample: false, url: URL.createObjectURL(copy.blob), change: isTooLarge ? "scaled" : "converted" };
}

/** A file as it is now: browsers refuse to read one again that was changed or moved since. */
async function inMemory(file) {
  return new Blob([await file.arrayBuffer()], { type: file.type });
}

/** Bytes of a picture that still fit into a body as base64. */
function maxImageBytes(maxBodyBytes) {
  return Math.floor(((maxBodyBytes - SPACE_FOR_FIELDS) * 3) / 4);
}

async function decode(file, name, format) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
    if (image.naturalWidth === 0) throw new Error("no size"); // an SVG without one
    return image;
  } catch {
    URL.revokeObjectURL(image.src);
    const isPicture = format !== null || file.type.startsWith("image/");
    throw new PageError("invalid_image", isPicture ? "error.not_shown" : "error.not_image", { name });
  }
}

/** A copy without EXIF: PNG where only its form changes, JPEG, and smaller until it fits, where it was too large. */
async function copied(image, isTooLarge, maxBytes, maxPixels) {
  let scale = Math.min(1, Math.sqrt(maxPixels / (image.naturalWidth * image.naturalHeight)));
  if (isTooLarge) scale = Math.min(scale, LONGEST_SIDE_OF_COPY / Math.max(image.naturalWidth, image.naturalHeight));
  for (;;) {
    const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.max(1, Math.round(side * scale)));
    const blob = await drawn(image, width, height, isTooLarge ? "image/jpeg" : "image/png");
    if (blob.size <= maxBytes) return { blob, width, height };
    if (Math.max(width, height) < SHORTEST_SIDE_OF_COPY) throw new PageError("image_too_large", "error.no_room");
    isTooLarge = true;
    scale *= 0.7;
  }
}

/** A small copy for lists: many pictures of a phone would fill the memory. */
async function thumbnailOf(image) {
  const scale = Math.min(1, THUMBNAIL_SIDE / Math.min(image.naturalWidth, image.naturalHeight));
  const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.min(Math.ceil(side * scale), 4 * THUMBNAIL_SIDE));
  return URL.createObjectURL(await drawn(image, width, height, "image/jpeg"));
}

function drawn(image, width, height, type) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // as the server does with transparent pixels
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, width, height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the canvas gave nothing"))), type, 0.92);
  });
}

/** The format by its first bytes, of those that browsers and server share; null for any other. */
function formatOf(head) {
  const text = latin(head.subarray(0, 16));
  if (text.startsWith("\u00ff\u00d8\u00ff")) return "jpeg";
  if (text.slice(1, 4) === "PNG") return "png";
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "webp";
  if (text.startsWith("GIF8")) return "gif";
  if (text.startsWith("BM")) return "bmp";
  return /^ftypavi[fs]/.test(text.slice(4)) ? "avif" : null;
}

/** Whether browsers may show another picture than the server reads: an animation, or an orientation outside of JPEG. */
function mayDiffer(head, format) {
  if (format === "jpeg" || format === "bmp") return false;
  if (format === "gif") return true;
  if (format === "webp") return (head[20] & 0b1010) !== 0 && latin(head.subarray(12, 16)) === "VP8X"; // its flags of EXIF and animation
  return /eXIf|acTL|Exif|avis|irot|imir/.test(latin(head));
}

/** Bytes as letters; those from 0x80 to 0x9f become others than in Latin-1, so they are not compared. */
function latin(bytes) {
  return new TextDecoder("latin1").decode(bytes);
}
