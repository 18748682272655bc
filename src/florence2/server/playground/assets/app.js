/** The page: puts its parts together and says what follows from what. */
import { fetchConfig, ROOT } from "./api.js";
import { offerThemeAndLanguage } from "./appearance.js";
import { Incomplete, question, questionOf } from "./ask.js";
import { GROUNDING, regionOf, tasksAboutObject } from "./cascades.js";
import { copyText } from "./clipboard.js";
import { CodeDialog } from "./code.js";
import { offerDownloads } from "./downloads.js";
import { announce, byId } from "./elements.js";
import { clearError, showError } from "./error_box.js";
import { PageError } from "./errors.js";
import { showHistory } from "./history.js";
import { languages, messages, t, translate } from "./i18n.js";
import { Inputs } from "./inputs.js";
import { summaryOf } from "./layer_card.js";
import { Picked } from "./picked.js";
import { closePicture, describe } from "./picture.js";
import { RegionFields } from "./region_fields.js";
import { Results } from "./results.js";
import { Runner } from "./run.js";
import { Session } from "./session.js";
import { offerKey, offerModels, showNotice } from "./settings.js";
import { nameOf, TaskChooser } from "./tasks.js";
import { Viewer } from "./viewer.js";

const FIRST_TASK = "<OD>";

const session = new Session();
const runner = new Runner(session);
const chooser = new TaskChooser();
const viewer = new Viewer(byId("viewer"), { messages: messages("viewer.") });
const region = new RegionFields(viewer);
const picked = new Picked(askAboutObject);
const code = new CodeDialog(copyText);
const results = new Results(session, viewer, {
  copy: copyText,
  titleOf,
  stop: (layer) => runner.stop(layer),
  ground: (layer) => start(question(chooser.find(GROUNDING), [layer.answerText], null)),
  code: showCode,
  pick: (layer, index) => picked.open(layer, index, true),
  describe: (layer, index) => askAboutObject(tasksAboutObject(layer)[0], layer, index),
});
let keyOf = () => "";
let clock = 0;

translate(document.documentElement);
offerThemeAndLanguage();
showHistory(session);
offerDownloads(session, viewer, results);
listenToForm();
listenToAnswers();
open();

/** Read what the server offers, and begin with its first example. */
async function open() {
  let config;
  try {
    config = await fetchConfig();
  } catch (error) {
    document.body.classList.add("is-ready");
    showError(error, () => location.reload());
    return;
  }
  byId("docs-link").href = new URL("docs", ROOT).href;
  offerModels(config);
  showNotice(config);
  keyOf = offerKey(config.needs_key);
  chooser.setTasks(config.tasks, FIRST_TASK);
  document.body.classList.add("is-ready");
  const inputs = new Inputs({ config, key: keyOf, onPicture, onError: showError, shownName });
  session.addEventListener("picture", () => inputs.drop());
  if (config.examples.length) await inputs.openExample(config.examples[0]);
  else byId("picture-name").textContent = shownName();
}

function shownName() {
  return session.current ? describe(session.current) : t("picture.hint");
}

function listenToForm() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    runForm();
  });
  byId("stop").addEventListener("click", () => runner.stop(null));
  byId("text").addEventListener("keydown", (event) => {
    const isComposing = event.isComposing || event.keyCode === 229; // Enter also ends a syllable of Korean; 229 is how Safari says so
    if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.metaKey || isComposing) return;
    event.preventDefault();
    runForm();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("code").open) runForm();
  });
  byId("code-open").addEventListener("click", () => {
    const form = asked();
    if (form) showCode(form);
  });
  byId("ask").addEventListener("input", () => (byId("ask-problem").textContent = ""));
  viewer.addEventListener("region", () => (byId("ask-problem").textContent = ""));
  chooser.addEventListener("change", taskChanged);
  session.addEventListener("picture", showPicture);
  session.addEventListener("layers", () => picked.keepIfSeen(session.current.layers));
  languages.addEventListener("change", () => {
    chooser.render();
    picked.close();
    viewer.setMessages(messages("viewer."));
    if (session.current) byId("picture-name").textContent = describe(session.current);
  });
}

function listenToAnswers() {
  viewer.addEventListener("select", ({ detail }) => {
    const layer = session.layer(detail.layerId);
    if (layer && !layer.isText) picked.open(layer, detail.index, document.activeElement?.closest(".viewer-object") !== null);
  });
  runner.addEventListener("start", ({ detail }) => started(detail.layer));
  runner.addEventListener("text", ({ detail }) => results.showText(detail.layer));
  runner.addEventListener("object", ({ detail }) => results.addObject(detail.layer, detail.object));
  runner.addEventListener("end", ({ detail }) => ended(detail));
}

function onPicture(picture) {
  clearError();
  const there = session.pictures.find((other) => picture.isExample && other.isExample && other.name === picture.name);
  if (there) closePicture(picture);
  if (there) session.show(there.id);
  else session.add(picture);
}

async function showPicture() {
  const picture = session.current;
  picked.close();
  region.set(null);
  region.setLimits(picture.width, picture.height);
  try {
    await viewer.setImage(picture);
  } catch {
    showError(new PageError("invalid_image", "viewer.unreadable"), null);
    return;
  }
  if (picture !== session.current) return; // another was chosen meanwhile
  byId("picture-name").textContent = describe(picture);
  announce(describe(picture));
  taskChanged();
  results.render();
}

function taskChanged() {
  byId("ask-problem").textContent = "";
  region.setOn(chooser.task.needs === "region");
  viewer.setSelectable(chooser.task.needs !== "region");
}

function titleOf(layer) {
  const task = chooser.find(layer.tag);
  const about = layer.text || layer.subject;
  return about ? `${nameOf(task)}: ${about}` : nameOf(task);
}

/** The form's question, or null after saying what is missing. */
function asked() {
  byId("ask-problem").textContent = "";
  try {
    if (session.current === null) throw new Incomplete(t("run.no_picture"), "choose");
    return questionOf(chooser.task, chooser.text, region, session.current);
  } catch (error) {
    if (!(error instanceof Incomplete)) throw error;
    byId("ask-problem").textContent = error.message;
    byId(error.fieldId).focus();
    return null;
  }
}

function runForm() {
  const form = asked();
  if (form) start(form);
}

/** Show a question, of the form or of a layer, as code. */
function showCode(asked) {
  code.open(asked, chooser.find(asked.tag), session.current, !byId("key-row").hidden);
}

function askAboutObject(tag, layer, index) {
  const { box, label } = layer.objects[index];
  start(question(chooser.find(tag), [], regionOf(box, session.current), label));
}

/** Run a question, and show what goes wrong, with a way to try again. */
async function start(form) {
  if (runner.isAsking(form)) return; // pressed twice
  clearError();
  picked.close();
  const isText = chooser.find(form.tag).kind === "text";
  const picture = session.current;
  const { layer, error } = await runner.run(form, { isText, key: keyOf() });
  const retry = () => {
    session.removeLayer(layer.id);
    if (session.current !== picture) session.show(picture.id);
    const chosen = error.kind === "model" ? { model_id: byId("model").value } : {}; // another, if the advice was followed
    start({ ...form, request: { ...form.request, ...chosen } });
  };
  if (error) showError(error, retry);
}

function started(layer) {
  if (byId("stop").hidden) clock = setInterval(() => results.tick(), 1000);
  byId("stop").hidden = false;
  announce(t("run.running", { task: titleOf(layer) }));
  results.reveal(layer);
}

function ended({ layer, error }) {
  if (!runner.isRunning) {
    if (document.activeElement === byId("stop")) byId("run").focus();
    byId("stop").hidden = true;
    clearInterval(clock);
  }
  const isEmpty = layer.objects.length === 0 && layer.answerText === "";
  if (layer.state !== "done" && isEmpty) session.removeLayer(layer.id);
  if (layer.state === "stopped") announce(t("run.stopped"));
  if (layer.state === "done") announce(layer.isText ? t("layer.answer", { text: layer.answerText }) : summaryOf(layer));
  if (!error) results.reveal(layer);
}
