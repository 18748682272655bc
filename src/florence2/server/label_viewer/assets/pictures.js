/**
 * The pictures that are shown, as far as they are known: fetched in blocks as they come into sight, the last used ones kept.
 *
 * In: filters. Out: pictures by their position; "loaded" when there are more, "failed" with the error. Knows nothing of elements.
 */
import { fetchPictures } from "./api.js";

const BLOCK = 48;
const MAX_BLOCKS = 60;

export class Pictures extends EventTarget {
  total = 0;
  version = "";
  #filters = new URLSearchParams();
  #blocks = new Map(); // block → its pictures, or the promise of them; the last used one last
  #stopping = new AbortController();

  /** Begin with other filters, or another version of the run; resolved when the first pictures are there. */
  async open(version, filters) {
    this.#stopping.abort();
    this.#stopping = new AbortController();
    this.#blocks.clear();
    [this.version, this.#filters] = [version, filters];
    await this.#load(0);
  }

  /** The picture at a position, or null if it is not known yet. */
  at(position) {
    const block = this.#blocks.get(Math.floor(position / BLOCK));
    return Array.isArray(block) ? (block[position % BLOCK] ?? null) : null;
  }

  /** Fetch what is not known of a range of positions. */
  want(first, last) {
    for (let block = Math.floor(Math.max(first, 0) / BLOCK); block <= Math.floor(last / BLOCK); block++) {
      this.#load(block).catch((error) => this.#report(error));
    }
  }

  /** The picture at a position, once it is known. */
  async get(position) {
    await this.#load(Math.floor(position / BLOCK));
    return this.at(position);
  }

  #load(block) {
    const known = this.#blocks.get(block) ?? this.#fetch(block);
    this.#blocks.delete(block);
    this.#blocks.set(block, known);
    if (this.#blocks.size > MAX_BLOCKS) this.#blocks.delete(this.#blocks.keys().next().value);
    return Promise.resolve(known);
  }

  async #fetch(block) {
    const blocks = this.#blocks;
    const { signal } = this.#stopping;
    try {
      const answer = await fetchPictures(this.version, this.#filters, { start: block * BLOCK, count: BLOCK, signal });
      signal.throwIfAborted();
      this.total = answer.total;
      blocks.set(block, answer.pictures);
      this.dispatchEvent(new CustomEvent("loaded", { detail: { hasChanged: answer.has_changed } }));
    } catch (error) {
      if (!signal.aborted) blocks.delete(block);
      throw error;
    }
  }

  #report(error) {
    if (error.name !== "AbortError") this.dispatchEvent(new CustomEvent("failed", { detail: { error } }));
  }
}
