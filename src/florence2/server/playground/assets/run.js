/** Running a question: a new layer that fills as events come in, until it is whole, stopped or failed. */
import { isCutOff, objectsOf, readable, totalUsage, valuesOf } from "./answer.js";
import { streamAnswer } from "./api.js";
import { RequestError } from "./errors.js";

const LONGEST_WORK_MS = 16; // with what came in at once

/**
 * Sends "start" and "end" (for both, `detail.layer`; at the end also `detail.error`, null where there is none), and while it runs
 * "text" (`detail.layer`) and "object" (`detail.layer`, `detail.object`).
 */
export class Runner extends EventTarget {
  #session;
  /** @type {Map<import("./session.js").Layer, {abort: AbortController, asked: string}>} */
  #running = new Map();

  /** @param {import("./session.js").Session} session */
  constructor(session) {
    super();
    this.#session = session;
    addEventListener("pagehide", () => this.stop(null)); // a page that is left waits for nothing
  }

  get isRunning() {
    return this.#running.size > 0;
  }

  /**
   * Whether the same is being asked already about the current picture.
   * @param {import("./ask.js").Question} question
   */
  isAsking(question) {
    const asked = this.#keyOf(question);
    return [...this.#running.values()].some((run) => run.asked === asked);
  }

  /**
   * End a running answer, or all of them; what came so far stays.
   * @param {import("./session.js").Layer|null} layer
   */
  stop(layer) {
    for (const [running, { abort }] of this.#running) if (layer === null || running === layer) abort.abort();
  }

  /**
   * Ask about the current picture. Several answers can run at once, each in its own layer.
   * @param {import("./ask.js").Question} question
   * @param {{isText: boolean, key: string}} how `isText`: whether the task's answer is a text
   * @returns {Promise<{layer: import("./session.js").Layer, error: RequestError|null}>} `error`: why there is no whole answer; null if
   *   there is one, and if it was stopped
   */
  async run(question, { isText, key }) {
    const abort = new AbortController();
    const asked = this.#keyOf(question);
    const { blob } = this.#session.current;
    const layer = this.#session.addLayer({ ...question, isText });
    this.#running.set(layer, { abort, asked });
    this.#send("start", { layer });
    const error = await this.#follow(layer, streamAnswer(question.request, blob, { key, signal: abort.signal }));
    if (abort.signal.aborted) await new Promise((resolve) => setTimeout(resolve)); // a page that is being left draws nothing more
    this.#running.delete(layer);
    if (layer.state === "running") this.#session.changeLayer(layer, { state: error ? "failed" : "stopped" });
    this.#send("end", { layer, error });
    if (error !== null && !(error instanceof RequestError)) throw error; // a fault of the page's own
    return { layer, error };
  }

  #keyOf({ request }) {
    return `${this.#session.current.id} ${JSON.stringify(request)}`;
  }

  /** Take an answer's events; the error that ended them, or null. */
  async #follow(layer, events) {
    const run = { layer, written: [] };
    let pauseAt = performance.now() + LONGEST_WORK_MS;
    try {
      for await (const event of events) {
        this.#take(run, event);
        if (performance.now() < pauseAt) continue;
        await nextTask();
        pauseAt = performance.now() + LONGEST_WORK_MS;
      }
      return null;
    } catch (error) {
      return error.name === "AbortError" ? null : error;
    }
  }

  #take(run, { kind, data }) {
    const { layer } = run;
    layer.firstMs ??= performance.now() - layer.startedAt;
    if (kind === "text" && layer.isText) {
      run.written[data.prompt_index] = (run.written[data.prompt_index] ?? "") + data.text;
      layer.answerText = shownText(layer, run.written.filter(Boolean));
      this.#send("text", { layer });
    } else if (kind === "object") {
      const { label, box, quad, polygons, score } = data;
      const object = { label: label || labelFor(layer, data.prompt_index), box, ...(quad && { quad }), ...(polygons && { polygons }) };
      if (score !== undefined) object.score = score;
      layer.objects.push(object);
      this.#send("object", { layer, object });
    } else if (kind === "done") {
      this.#finish(run, data);
    }
  }

  /** The whole answer takes the place of what was streamed. */
  #finish(run, data) {
    const { layer } = run;
    const { raw, usage, ...answer } = data;
    const values = valuesOf(answer);
    const answerText = layer.isText ? shownText(layer, values.filter((value) => typeof value === "string")) : "";
    const objects = values.flatMap((value, index) => objectsOf(value, labelFor(layer, index)));
    if (layer.isText && layer.region && answerText) objects.push({ label: answerText, box: layer.region });
    const wholeMs = performance.now() - layer.startedAt;
    const isText = layer.isText && values.every((value) => typeof value === "string");
    this.#session.changeLayer(layer, {
      state: "done", answer, answerText, objects, isText, wholeMs, usage: totalUsage(usage), isCutOff: isCutOff(raw),
    });
  }

  #send(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Let the page draw and listen in between; timers would be slow in a tab that is not seen. */
function nextTask() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = resolve;
    port2.postMessage(null);
  });
}

/** What an object is called that the answer gives no label: what was looked for, or what the region held. */
function labelFor({ tag, texts, subject }, promptIndex) {
  return tag === null ? "" : texts[promptIndex] ?? subject;
}

/** A text answer as it is shown; only answers about a region end in places that say nothing new. */
function shownText(layer, texts) {
  const text = texts.join("\n");
  return layer.region ? readable(text) : text;
}
