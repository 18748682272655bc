/** The page: puts its parts together, and keeps them and its address in step. */
import { addressOf, filterWords, stateOf } from "./address.js";
import { Ended, fetchPictures, fetchPosition, fetchSummary, Outdated } from "./api.js";
import { offerThemeAndLanguage } from "./appearance.js";
import { announce, byId } from "./elements.js";
import { Filters } from "./filters.js";
import { whole } from "./found.js";
import { Grid } from "./grid.js";
import { languages, t, translate } from "./i18n.js";
import { Large } from "./large.js";
import { Pictures } from "./pictures.js";
import { LabelColors } from "./viewer/colors.js";

const LOOK_AGAIN_MS = 10_000;
const NARROW = "(max-width: 760px)";

const colors = new LabelColors();
const colorOf = (label) => colors.of(label);
const pictures = new Pictures();
const grid = new Grid(byId("grid"), pictures);
const filters = new Filters(colorOf);
const large = new Large(pictures, (viewer) => summary.classes.forEach(({ name }) => viewer.colorOf(name)));
let summary = null;
let state = stateOf(location.search);

translate(document.documentElement);
offerThemeAndLanguage();
listen();
byId("filters").open = !matchMedia(NARROW).matches;
start();

/** Read the run, and show what the address asks for. */
async function start({ isAtTop = true } = {}) {
  byId("count").textContent = t("grid.loading");
  byId("newer").hidden = true;
  try {
    summary = await fetchSummary();
    for (const { name } of summary.classes) colorOf(name);
    byId("run-title").textContent = summary.title;
    filters.setSummary(summary);
    filters.show(state);
    document.body.classList.add("is-ready");
    await showPictures({ isAtTop });
    await followAddress();
  } catch (error) {
    document.body.classList.add("is-ready");
    fail(error);
  }
}

function listen() {
  filters.addEventListener("change", ({ detail }) => {
    state = { ...detail.state, picture: null };
    history.replaceState(null, "", addressOf(state));
    showPictures().catch(fail);
  });
  grid.addEventListener("open", ({ detail }) => {
    history.pushState({ isOpened: true }, "", addressOf(state));
    large.open(detail.position, state);
  });
  large.addEventListener("moved", ({ detail }) => {
    state = { ...state, picture: detail.name };
    history.replaceState(history.state, "", addressOf(state));
  });
  large.addEventListener("failed", ({ detail }) => fail(detail.error));
  large.addEventListener("closed", ({ detail }) => closed(detail.position));
  pictures.addEventListener("loaded", ({ detail }) => detail.hasChanged && (byId("newer").hidden = false));
  pictures.addEventListener("failed", ({ detail }) => fail(detail.error));
  byId("newer").addEventListener("click", () => start({ isAtTop: false }));
  byId("message-retry").addEventListener("click", () => start());
  window.addEventListener("popstate", () => wentBack().catch(fail));
  languages.addEventListener("change", () => {
    if (!summary) return;
    filters.translate();
    grid.show(cellOptions(), { isAtTop: false });
    count();
  });
  setInterval(() => lookAgain(), LOOK_AGAIN_MS);
}

function cellOptions() {
  return { version: summary.version, filters: state, colorOf, fail };
}

/** Show the pictures that the filters leave. */
async function showPictures({ isAtTop = true } = {}) {
  await pictures.open(summary.version, filterWords(state));
  byId("message").hidden = true;
  grid.show(cellOptions(), { isAtTop });
  count();
}

function count() {
  const all = summary.num_labelled + summary.num_problems;
  const { total } = pictures;
  const isWhole = total === all;
  const words = isWhole ? t("grid.all", { count: total, total: whole(total) }) : t("grid.count", { total: whole(total), all: whole(all) });
  byId("count").textContent = total ? words : t(all ? "grid.none" : "grid.none_yet");
  byId("grid-hint").hidden = grid.numReachable >= total;
  byId("grid-hint").textContent = t("grid.too_many", { count: whole(grid.numReachable) });
}

/** Open the picture that the address names, if it is among those that are shown. */
async function followAddress() {
  if (state.picture === null) return large.close();
  const position = await fetchPosition(summary.version, filterWords(state), state.picture);
  if (position !== null) return large.open(position, state);
  state = { ...state, picture: null };
  history.replaceState(null, "", addressOf(state));
  announce(t("large.gone"));
}

/** The large picture was closed: by a key or a button, or by going back. */
function closed(position) {
  if (state.picture !== null) {
    state = { ...state, picture: null };
    if (history.state?.isOpened) history.back();
    else history.replaceState(null, "", addressOf(state));
  }
  if (position !== null) grid.focus(position);
}

async function wentBack() {
  const before = filterWords(state).toString();
  state = stateOf(location.search);
  if (filterWords(state).toString() !== before) {
    filters.show(state);
    await showPictures();
  }
  await followAddress();
}

/** See from time to time whether the run has grown. */
async function lookAgain() {
  if (document.hidden || !summary || !byId("newer").hidden || !byId("message").hidden) return;
  const answer = await fetchPictures(summary.version, filterWords(state), { start: 0, count: 0 }).catch(() => null);
  if (answer?.has_changed) byId("newer").hidden = false;
}

/** Say what went wrong; where the run was only read again by another page, show it as it is now. */
function fail(error) {
  if (error.name === "AbortError") return;
  if (error instanceof Outdated) {
    start({ isAtTop: false });
    return;
  }
  byId("count").textContent = "";
  byId("message").hidden = false;
  byId("message-text").textContent = error instanceof Ended ? t("message.ended") : t("message.failed", { reason: error.message });
}
