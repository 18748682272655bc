/** The server's routes that the page calls. Knows nothing of how their answers are shown. */
import { errorFrom, PageError, RequestError } from "./errors.js";
import { readEvents } from "./events.js";

/** The server's address, below which all its routes are. */
export const ROOT = new URL("../../", import.meta.url);

/**
 * The address of a path that the server names, whether it begins with the server's own root path or not.
 * @param {string} path
 */
export function addressOf(path) {
  return new URL(path.startsWith(ROOT.pathname) ? path : path.replace(/^\/+/, ""), ROOT);
}

/**
 * What the server says of itself: models, tasks, examples, limits.
 * @returns {Promise<any>}
 */
export async function fetchConfig() {
  return (await ask("playground/config", {})).json();
}

/**
 * A picture's bytes from this server.
 * @param {string} path
 * @returns {Promise<Blob>}
 */
export async function fetchExample(path) {
  return (await ask(addressOf(path).href, {})).blob();
}

/**
 * A picture's bytes from elsewhere, fetched by the server.
 * @param {string} url
 * @param {string} key
 * @returns {Promise<Blob>}
 */
export async function fetchLink(url, key) {
  const headers = { "content-type": "application/json", ...authorization(key) };
  return (await ask("playground/image", { method: "POST", headers, body: JSON.stringify({ url }) })).blob();
}

/**
 * The events of an answer: "text", "object", and last "done" with the whole.
 * @param {Record<string, any>} request the fields of `/infer/lmm` but for the image
 * @param {Blob} image
 * @param {{key: string, signal: AbortSignal}} how
 * @returns {AsyncGenerator<{kind: string, data: any}>}
 * @throws {RequestError} also where the stream ends without "done"; an AbortError once the signal was given.
 */
export async function* streamAnswer(request, image, { key, signal }) {
  const headers = { "content-type": "application/json", ...authorization(key) };
  const body = await bodyOf({ ...request, stream: true, usage: true }, image);
  const response = await ask("infer/lmm", { method: "POST", headers, body, signal });
  try {
    for await (const event of readEvents(response.body)) {
      if (event.kind === "error") throw withId(errorFrom(event.data, event.data.status ?? 500), response);
      yield event;
      if (event.kind === "done") return;
    }
  } catch (error) {
    if (error instanceof RequestError || error.name === "AbortError") throw error;
  }
  throw new PageError("interrupted", "error.interrupted");
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(new URL(path, ROOT), { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new PageError("unreachable", "error.unreachable", { address: ROOT.host });
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw withId(errorFrom(body, response.status, response.headers.get("retry-after")), response);
}

/** The error with the id by which the server's log knows the request. */
function withId(error, response) {
  return Object.assign(error, { requestId: response.headers.get("x-request-id") });
}

function authorization(key) {
  const [sign] = key.match(/[^\x20-\x7e]/u) ?? []; // no header can hold it
  if (sign) throw new PageError("unauthorized", "error.key_sign", { sign });
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** The request's JSON, put together of pieces so that the picture's text is held only once. */
async function bodyOf(request, image) {
  const fields = JSON.stringify(request).slice(0, -1);
  return new Blob([fields, ',"image":{"type":"base64","value":"', await base64(image), '"}}'], { type: "application/json" });
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
