/** Errors as the page knows them: the server's, a connection's and the page's own, and which kind each is. */

const KINDS = {
  unauthorized: "key",
  image_too_large: "large", body_too_large: "large", too_many_items: "large",
  invalid_image: "image", unsupported_media_type: "image", invalid_link: "link",
  overloaded: "busy", out_of_memory: "busy", timed_out: "busy", body_timed_out: "busy",
  model_loading: "loading",
  model_not_found: "model", model_failed: "model", invalid_checkpoint: "model", download_failed: "model",
  not_offered: "refused", origin_refused: "refused", not_found: "refused", method_not_allowed: "refused",
  draining: "gone", engine_closed: "gone", unreachable: "gone",
  interrupted: "broken",
};

/** What the page tells a person. `message` is the server's own sentence where there is one. */
export class RequestError extends Error {
  /**
   * @param {string} message
   * @param {{code?: string, status?: number, field?: string|null, helpUrl?: string|null, retryAfterS?: number|null,
   *   isOurs?: boolean}} [details] `isOurs`: the message is the page's, in the page's language.
   */
  constructor(message, { code = "", status = 0, field = null, helpUrl = null, retryAfterS = null, isOurs = false } = {}) {
    super(message);
    Object.assign(this, { code, status, field, helpUrl, retryAfterS, isOurs, isAboutLink: false });
  }

  /** @returns {string} which heading and advice fit: "key", "large", "image", "prompt", "busy", "loading", "gone", … */
  get kind() {
    if (this.isAboutLink && KINDS[this.code] === "image") return "link";
    if (KINDS[this.code]) return KINDS[this.code];
    if (this.status === 429 || this.status === 503) return "busy";
    if (this.status === 413) return "large";
    if (this.status === 401) return "key";
    return this.status >= 400 && this.status < 500 ? "prompt" : "server";
  }
}

/**
 * The error that a response or an `error` event holds.
 * @param {any} body the parsed JSON, or null where it is none
 * @param {number} status
 * @param {string|null} retryAfter the header's value
 * @param {string} otherwise the message where the body has none
 */
export function errorFrom(body, status, retryAfter, otherwise) {
  const { message, code, field, help_url: helpUrl, retry_after: later } = body && typeof body === "object" ? body : {};
  const seconds = Number.parseFloat(retryAfter ?? later ?? "");
  return new RequestError(typeof message === "string" ? message : otherwise, {
    code: typeof code === "string" ? code : "",
    status,
    field: typeof field === "string" ? field : null,
    helpUrl: typeof helpUrl === "string" ? helpUrl : null,
    retryAfterS: Number.isFinite(seconds) ? seconds : null,
    isOurs: typeof message !== "string",
  });
}

/**
 * An error's help page, if it is a page of the web.
 * @param {RequestError} error
 * @returns {string|null}
 */
export function helpOf(error) {
  try {
    const url = new URL(error.helpUrl ?? "", location.href);
    return error.helpUrl && /^https?:$/.test(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}
