/** From the form to a request: what the person chose, checked for what is plainly missing. */
import { byId } from "./elements.js";
import { t } from "./i18n.js";
import { textsOf } from "./tasks.js";

/**
 * @typedef {{tag: string|null, text: string, texts: string[], region: number[]|null, subject: string,
 *   request: Record<string, any>}} Question `subject`: what the region is known as, or ""; `request` has the fields of `/infer/lmm` but for the image.
 */

/** Something is missing before a request can be made. */
export class Incomplete extends Error {
  /**
   * @param {string} message for the person
   * @param {string} fieldId the element to go to
   */
  constructor(message, fieldId) {
    super(message);
    this.fieldId = fieldId;
  }
}

/**
 * The question that the form asks.
 * @param {import("./tasks.js").Task} task
 * @param {string} text
 * @param {import("./region_fields.js").RegionFields} region
 * @param {{width: number, height: number}} picture
 * @returns {Question}
 * @throws {Incomplete}
 */
export function questionOf(task, text, region, picture) {
  const texts = textsOf(task, text);
  if (task.needs === "text" && texts.every((one) => one.trim() === "")) {
    throw new Incomplete(t(task.tag === null ? "text.missing_own" : "text.missing"), "text");
  }
  if (task.needs === "region") checkRegion(region, picture);
  return question(task, texts, task.needs === "region" ? region.value : null);
}

/**
 * The question about a task with its texts or region, with the options of the form.
 * @param {import("./tasks.js").Task} task
 * @param {string[]} texts
 * @param {number[]|null} region
 * @param {string} [subject] the label of the object that is in the region
 * @returns {Question}
 */
export function question(task, texts, region, subject = "") {
  const request = { model_id: byId("model").value, ...promptFields(task.tag, texts, region), ...options(task) };
  return { tag: task.tag, text: texts.join(", "), texts, region, subject, request };
}

function promptFields(tag, texts, region) {
  if (tag === null) return { prompt: texts[0] };
  if (texts.length > 1) return { prompts: texts.map((text) => ({ prompt: tag, text })) };
  return { prompt: tag, ...(texts.length ? { text: texts[0] } : {}), ...(region ? { region } : {}) };
}

function checkRegion(region, { width, height }) {
  if (region.isEmpty) throw new Incomplete(t("region.missing"), "x1");
  const corners = region.value;
  if (corners === null || corners[2] > width || corners[3] > height) throw new Incomplete(t("region.invalid"), "x1");
}

function options(task) {
  const chosen = { raw: true };
  for (const [name, id] of [["num_beams", "num-beams"], ["max_new_tokens", "max-new-tokens"]]) {
    if (byId(id).value !== "") chosen[name] = Number(byId(id).value);
  }
  if (byId("scores").checked) chosen.scores = true;
  if (task.tag === null && byId("allow-unknown-tag").checked) chosen.allow_unknown_tag = true;
  return chosen;
}
