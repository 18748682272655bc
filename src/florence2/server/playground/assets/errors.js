/** Errors as the page knows them: the server's, a connection's and the page's own, and which kind each is. */

import { t } from "./i18n.js";

const KINDS = {
  unauthorized: "key",
  image_too_large: "large", body_too_large: "large", too_many_items: "prompt",
  invalid_image: "image", unsupported_media_type: "image", invalid_link: "link",
  overloaded: "busy", out_of_memory: "busy", timed_out: "busy", body_timed_out: "busy",
  model_loading: "loading",
  model_not_found: "model", model_failed: "model", invalid_checkpoint: "model", download_failed: "model",
  not_offered: "refused", origin_refused: "refused", not_found: "refused", method_not_allowed: "refused",
  draining: "gone", engine_closed: "gone", unreachable: "gone",
  interrupted: "broken",
};

/** What the page tells a person, in the server's own words. */
export class RequestError extends Error {
  isAboutLink = false;
  /** @type {string|null} */
  requestId = null;

  /**
   * @param {string|undefined} message
   * @param {{code?: string, status?: number, field?: string|null, helpUrl?: string|null, retryAfterS?: number|null}} [details]
   */
  constructor(message, { code = "", status = 0, field = null, helpUrl = null, retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { code, status, field, helpUrl, retryAfterS });
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

/** An error that the page itself words, in its language of the moment. */
export class PageError extends RequestError {
  #key;
  #values;

  /**
   * @param {string} code
   * @param {string} key of its words
   * @param {Record<string, string|number>} [values]
   * @param {ConstructorParameters<typeof RequestError>[1]} [details]
   */
  constructor(code, key, values = {}, details = {}) {
    super(undefined, { ...details, code });
    this.#key = key;
    this.#values = values;
  }

  get message() {
    return t(this.#key, this.#values);
  }
}

/**
 * The error that a response or an `error` event holds.
 * @param {any} body the parsed JSON, or null where it is none
 * @param {number} status
 * @param {string|null} [retryAfter] the header's value
 */
export function errorFrom(body, status, retryAfter = null) {
  const { message, code, field, help_url: helpUrl } = body && typeof body === "object" ? body : {};
  const seconds = Number.parseFloat(retryAfter ?? "");
  const details = {
    code: typeof code === "string" ? code : "",
    status,
    field: typeof field === "string" ? field : null,
    helpUrl: typeof helpUrl === "string" ? helpUrl : null,
    retryAfterS: Number.isFinite(seconds) ? seconds : null,
  };
  return typeof message === "string" ? new RequestError(message, details) : new PageError(details.code, "error.status", { status }, details);
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
