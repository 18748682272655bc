/**
 * The request of the page as a program: for curl, both Python clients and OpenAI's, and as the body alone.
 *
 * In: what was asked. Out: text that runs as it stands, beside the picture's file. The key is never in it: programs read it from the
 * environment variable API_KEY, where the server needs one.
 *
 * @typedef {object} Asked
 * @property {string} address of the server, as "http://localhost:9001"
 * @property {string} model
 * @property {string} tag a task's tag, or a free prompt
 * @property {string} [text] of a task that needs one
 * @property {number[]} [region] x1, y1, x2, y2 in pixels of the picture, of a task that needs one
 * @property {object} [options] fields of the request by their names, such as ``scores`` and ``num_beams``
 * @property {string} [imageName] the picture's file
 * @property {string} [imageUrl] the picture's address, if it has no file
 * @property {number} [width] of the picture in pixels; with height, for ``inferenceSdk`` with a region
 * @property {number} [height]
 * @property {string} [kind] of the task's answer, as in the server's table of tasks
 * @property {boolean} [needsKey] whether the server needs a key
 */

const MEDIA_TYPES = {
  png: "image/png",
  webp: "image/webp",
  gif: "image/gif",
  bmp: "image/bmp",
  avif: "image/avif",
  tif: "image/tiff",
  tiff: "image/tiff",
};
// Characters that a reader of a program would not see, or that turn what stands beside them.
const UNSEEN = /[\u007F-\u009F\u00AD\u061C\u200B\u200E\u200F\u2028-\u202E\u2060-\u2069\uFEFF]/g;
const NUM_BINS = 1000;
// Fields of the chat completions of this server, beside OpenAI's own.
const CHAT_FIELDS = ["num_beams", "no_repeat_ngram_size", "scores", "coordinates", "allow_unknown_tag"];

/** @param {Asked} asked */
export function curl(asked) {
  const { address, imageName, imageUrl, needsKey } = asked;
  const fields = fieldsOf(asked);
  const lines = [`curl -sS ${quoted(`${address}/infer/lmm`)}`];
  if (needsKey) lines.push('-H "Authorization: Bearer $API_KEY"');
  if (imageUrl) {
    lines.push("-H 'Content-Type: application/json'", `--data-raw ${quoted(JSON.stringify({ ...fields, image: urlImage(imageUrl) }))}`);
  } else {
    lines.push(`-F ${quoted(`image=@"${fileOf(imageName).replace(/[\\"]/g, "\\$&")}"`)}`);
    for (const [name, value] of Object.entries(fields)) lines.push(`--form-string ${quoted(`${name}=${value}`)}`);
  }
  return `${lines.join(" \\\n  ")}\n`;
}

/** The body of the request alone. @param {Asked & {imageBase64?: string}} asked imageBase64: the file; a placeholder if left out. */
export function json(asked) {
  const { imageName, imageUrl, imageBase64 } = asked;
  const image = imageUrl ? urlImage(imageUrl) : { type: "base64", value: imageBase64 ?? `(base64 of ${fileOf(imageName)})` };
  return `${JSON.stringify({ ...fieldsOf(asked), image }, null, 2)}\n`;
}

/** For ``florence2.client``. @param {Asked} asked */
export function python(asked) {
  const { model_id, prompt, ...others } = fieldsOf(asked);
  const settings = [`api_url=${literal(asked.address)}`, ...keyOf(asked)];
  const values = Object.entries({ model_id, prompt, ...others }).map(([name, value]) => `${name}=${literal(value)}`);
  return program([
    ...(asked.needsKey ? ["import os", ""] : []),
    "from florence2.client import InferenceHTTPClient",
    "",
    `client = InferenceHTTPClient(${settings.join(", ")})`,
    ...call("answer = client.infer_lmm", [literal(sourceOf(asked)), ...values]),
    'print(answer["response"])',
  ]);
}

/** For Roboflow's ``inference_sdk``, whose calls have no fields for texts and regions: they stand in the prompt. @param {Asked} asked */
export function inferenceSdk(asked) {
  const { max_new_tokens, ...others } = asked.options ?? {};
  const left = Object.keys(others).filter((name) => others[name] !== undefined && others[name] !== null);
  const values = [`model_id=${literal(asked.model)}`, `prompt=${literal(asked.tag + (asked.text ?? "") + locationTokens(asked))}`];
  if (max_new_tokens) values.push(`max_new_tokens=${literal(max_new_tokens)}`);
  return program([
    ...(asked.needsKey ? ["import os", ""] : []),
    "from inference_sdk import InferenceHTTPClient",
    "",
    `client = InferenceHTTPClient(api_url=${literal(asked.address)}${keyOf(asked).map((key) => `, ${key}`).join("")})`,
    ...(left.length ? [`# inference_sdk has no option for ${left.join(", ")}.`] : []),
    ...call("answer = client.infer_lmm", [literal(sourceOf(asked)), ...values]),
    'print(answer["response"])',
  ]);
}

/** For OpenAI's Python client. @param {Asked} asked */
export function openai(asked) {
  const { address, model, tag, text, imageName, imageUrl, needsKey } = asked;
  const file = fileOf(imageName);
  const type = MEDIA_TYPES[file.split(".").at(-1).toLowerCase()] ?? "image/jpeg";
  const key = needsKey ? 'os.getenv("API_KEY")' : '"none"';
  return program([
    ...(imageUrl ? [] : ["import base64"]),
    ...(needsKey ? ["import os"] : []),
    ...(imageUrl ? [] : ["from pathlib import Path"]),
    ...(imageUrl && !needsKey ? [] : [""]),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${literal(`${address}/v1`)}, api_key=${key})`,
    ...(imageUrl ? [] : [`picture = base64.b64encode(Path(${literal(file)}).read_bytes()).decode()`]),
    "content = [",
    `    {"type": "image_url", "image_url": {"url": ${imageUrl ? literal(imageUrl) : `f"data:${type};base64,{picture}"`}}},`,
    `    {"type": "text", "text": ${literal(tag + (text ?? ""))}},`,
    "]",
    ...call("completion = client.chat.completions.create", [
      `model=${literal(model)}`,
      'messages=[{"role": "user", "content": content}]',
      ...chatOptions(asked),
    ]),
    "print(completion.choices[0].message.content)",
  ]);
}

function chatOptions({ kind, region, options = {} }) {
  const { max_new_tokens, scores, coordinates } = options;
  const extra = Object.fromEntries(CHAT_FIELDS.filter((name) => isGiven(options[name])).map((name) => [name, options[name]]));
  if (region) extra.region = region;
  const isParsed = scores || coordinates || (kind && kind !== "text");
  return [
    ...(max_new_tokens ? [`max_completion_tokens=${literal(max_new_tokens)}`] : []),
    ...(isParsed ? ['response_format={"type": "json_object"}'] : []),
    ...(Object.keys(extra).length ? [`extra_body=${literal(extra)}`] : []),
  ];
}

function fieldsOf({ model, tag, text, region, options = {} }) {
  const fields = { model_id: model, prompt: tag, text, region, ...options };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => isGiven(value)));
}

function isGiven(value) {
  return value !== undefined && value !== null;
}

function urlImage(url) {
  return { type: "url", value: url };
}

function fileOf(imageName) {
  return imageName || "picture.jpg";
}

function sourceOf({ imageName, imageUrl }) {
  return imageUrl || fileOf(imageName);
}

function keyOf({ needsKey }) {
  return needsKey ? ['api_key=os.getenv("API_KEY")'] : [];
}

/** The region in the model's own tokens, computed as the server does, in single precision and rounded down. */
function locationTokens({ region, width, height }) {
  if (!region) return "";
  return region
    .map((value, index) => Math.floor(Math.fround(Math.fround(value) / Math.fround((index % 2 ? height : width) / NUM_BINS))))
    .map((bin) => `<loc_${Math.min(Math.max(bin, 0), NUM_BINS - 1)}>`)
    .join("");
}

/** A word of a shell's command line, whatever is in it. */
function quoted(text) {
  // eslint-disable-next-line no-control-regex
  if (!/[\u0001-\u0008\u000B-\u001F\u007F]/.test(text)) return `'${text.replaceAll("'", "'\\''")}'`;
  // eslint-disable-next-line no-control-regex
  return `$'${text.replace(/[\\']/g, "\\$&").replace(/[\u0001-\u001F\u007F]/g, (sign) => `\\x${hex(sign, 2)}`)}'`;
}

/** A value as Python writes it. */
function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (value !== null && typeof value === "object") {
    return `{${Object.entries(value).map(([name, one]) => `${literal(name)}: ${literal(one)}`).join(", ")}}`;
  }
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "string") return String(value);
  return JSON.stringify(value).replace(UNSEEN, (sign) => `\\u${hex(sign, 4)}`);
}

function hex(sign, digits) {
  return sign.charCodeAt(0).toString(16).padStart(digits, "0");
}

function call(name, values) {
  return [`${name}(`, ...values.map((value) => `    ${value},`), ")"];
}

function program(lines) {
  return `${lines.join("\n")}\n`;
}
