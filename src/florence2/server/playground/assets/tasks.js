/** The choice of a task: groups by what a task gives, the tasks of a group, and the text that one may need. */
import { byId, make } from "./elements.js";
import { hasWords, t } from "./i18n.js";
import { recall, remember } from "./stored.js";

/** @typedef {{tag: string|null, name: string, kind: string, needs: null|"text"|"region"}} Task `tag` is null for a free prompt. */

const GROUPS = ["find", "describe", "outline", "read", "own"];
const FREE_PROMPT = { tag: null, name: "own", kind: "text", needs: "text" };
/** Tasks that take one name; several names become several prompts of one request. */
const NAMED = ["<OPEN_VOCABULARY_DETECTION>", "<REFERRING_EXPRESSION_SEGMENTATION>"];

/**
 * The name of a task in the page's language.
 * @param {Task} task
 */
export function nameOf(task) {
  const key = `task.${wordOf(task)}`;
  return hasWords(key) ? t(key) : task.name;
}

/**
 * The texts of a request: of tasks that take one name, each name for itself.
 * @param {Task} task
 * @param {string} text as it was typed
 * @returns {string[]} none for a task without a text
 */
export function textsOf(task, text) {
  if (task.needs !== "text") return [];
  if (!NAMED.includes(task.tag)) return [task.tag === null ? text : text.trim()];
  return text.split(/[,;，、\n]/).map((name) => name.trim()).filter(Boolean);
}

function wordOf(task) {
  return task.tag === null ? "own" : task.tag.slice(1, -1);
}

function groupOf(task) {
  if (task.tag === null) return "own";
  if (task.kind === "quads" || /OCR/.test(task.tag)) return "read";
  return { text: "describe", polygons: "outline" }[task.kind] ?? "find";
}

/** The drafts from before a reload; none where what is stored is of another page's making. */
function storedDrafts() {
  try {
    return JSON.parse(recall("tab", "drafts") ?? "{}");
  } catch {
    return {};
  }
}

/** What a task's text is: names to look for, a sentence, or a prompt. Each keeps its own draft. */
function textKindOf(task) {
  if (task.tag === null) return "own";
  return NAMED.includes(task.tag) ? "names" : "sentence";
}

/** The form's part about the task. Sends "change" when another task was chosen. */
export class TaskChooser extends EventTarget {
  /** @type {Task} */
  task = FREE_PROMPT;
  #tasks = [FREE_PROMPT];
  #drafts = { names: "", sentence: "", own: "", ...storedDrafts() };

  constructor() {
    super();
    byId("groups").addEventListener("change", (event) => this.#choose(this.#firstOf(event.target.value)));
    byId("tasks").addEventListener("change", (event) => this.#choose(this.#tasks.find((task) => wordOf(task) === event.target.value)));
    byId("text").addEventListener("input", () => this.#keepDraft(this.task, byId("text").value));
  }

  /**
   * Take over the server's table and choose a first task.
   * @param {Task[]} tasks
   * @param {string|null} tag
   */
  setTasks(tasks, tag) {
    this.#tasks = [...tasks, FREE_PROMPT];
    this.#choose(this.find(tag) ?? this.#tasks[0]);
  }

  /**
   * The row of the server's table.
   * @param {string|null} tag
   * @returns {Task|undefined}
   */
  find(tag) {
    return this.#tasks.find((task) => task.tag === tag);
  }

  /** What stands in the text field; empty where the task has none. */
  get text() {
    return this.task.needs === "text" ? byId("text").value : "";
  }

  /** Write everything again, after a change of language. */
  render() {
    this.#renderChoices();
    const word = wordOf(this.task);
    byId("about-text").textContent = hasWords(`about.${word}`) ? t(`about.${word}`) : "";
    byId("about-tag").textContent = this.task.tag ?? "";
    byId("text-row").hidden = this.task.needs !== "text";
    byId("unknown-tag-row").hidden = this.task.tag !== null;
    const kind = textKindOf(this.task);
    byId("text-label").textContent = t(`text.${kind}`);
    byId("text").placeholder = t(`text.${kind}_placeholder`);
    if (byId("text").value !== this.#drafts[kind]) byId("text").value = this.#drafts[kind];
  }

  /** What was typed outlives a reload of the page, not the tab. */
  #keepDraft(task, text) {
    this.#drafts[textKindOf(task)] = text;
    remember("tab", "drafts", JSON.stringify(this.#drafts));
  }

  #firstOf(group) {
    return this.#tasks.find((task) => groupOf(task) === group);
  }

  #choose(task) {
    this.task = task;
    this.render();
    this.dispatchEvent(new Event("change"));
  }

  #renderChoices() {
    const group = groupOf(this.task);
    const groups = GROUPS.filter((name) => this.#firstOf(name));
    fill(byId("groups"), "group", groups.map((name) => [name, t(`group.${name}`)]), group);
    const tasks = this.#tasks.filter((task) => groupOf(task) === group);
    fill(byId("tasks"), "task", tasks.map((task) => [wordOf(task), nameOf(task)]), wordOf(this.task));
    byId("tasks").hidden = tasks.length < 2;
  }
}

/**
 * A row of radio buttons; the ones that are there already stay, so that the focus does.
 * @param {HTMLElement} parent
 * @param {string} name of the buttons
 * @param {[string, string][]} choices value and text
 * @param {string} chosen
 */
export function fill(parent, name, choices, chosen) {
  const there = [...parent.querySelectorAll("input")].map((input) => input.value);
  if (there.join() !== choices.map(([value]) => value).join()) {
    parent.replaceChildren(...choices.map(([value]) => choice(name, value)));
  }
  choices.forEach(([value, text], index) => {
    parent.children[index].querySelector("span").textContent = text;
    parent.children[index].querySelector("input").checked = value === chosen;
  });
}

function choice(name, value) {
  return make("label", { class: "choice", "data-testid": `${name}-${value}` }, make("input", { type: "radio", name, value }), make("span"));
}
