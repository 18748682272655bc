/** How an error is shown: what happened in the server's words, what to do, a way to try again, a page with more. */
import { byId, icon, make } from "./elements.js";
import { helpOf, PageError } from "./errors.js";
import { languages, t } from "./i18n.js";

/** Kinds of errors that the same request meets again. */
const HOPELESS = new Set(["prompt", "large", "image", "refused"]);

let countdown = 0;

/** @type {(() => HTMLElement)|null} */
let makeBox = null;

languages.addEventListener("change", () => makeBox && write());

/**
 * Show an error in place of the one before.
 * @param {import("./errors.js").RequestError} error
 * @param {(() => void)|null} retry null where trying again makes no sense
 */
export function showError(error, retry) {
  clearError();
  const isWrongKey = error.kind === "key" && byId("key").value !== "";
  makeBox = () => boxOf(error, isWrongKey ? "wrong_key" : error.kind, retry);
  write();
  byId("errors").firstChild.scrollIntoView({ block: "nearest" });
  goTo(error);
}

function write() {
  clearInterval(countdown);
  byId("errors").replaceChildren(makeBox());
}

function boxOf(error, heading, retry) {
  const language = error instanceof PageError ? null : "en";
  const dismiss = make("button", { type: "button", class: "quiet icon-only", "data-testid": "error-dismiss", "aria-label": t("error.dismiss"),
    onclick: dismissed }, icon("close"));
  return make("div", { class: "error", role: "alert", "data-testid": "error", "data-kind": error.kind, "data-code": error.code },
    make("div", { class: "error-top" }, make("strong", { text: t(`error.heading.${heading}`) }), dismiss),
    make("p", { class: "error-message", "data-testid": "error-message", text: error.message, lang: language }),
    make("p", { "data-testid": "error-advice", text: t(`error.do.${error.kind}`) }),
    error.kind === "server" && error.requestId ? make("p", { class: "hint", text: t("error.request_id", { id: error.requestId }) }) : null,
    actionsOf(error, retry));
}

/** Take the error away. */
export function clearError() {
  clearInterval(countdown);
  makeBox = null;
  byId("errors").replaceChildren();
  byId("key").removeAttribute("aria-invalid");
}

function dismissed() {
  clearError();
  byId("run").focus(); // the button that had the focus is gone
}

function actionsOf(error, retry) {
  const actions = make("div", { class: "error-actions" });
  if (retry && !HOPELESS.has(error.kind)) actions.append(retryButton(error.retryAfterS ?? 0, retry));
  const help = helpOf(error);
  if (help) {
    const label = `${t("error.help")} ${t("page.new_tab")}`;
    actions.append(make("a", { href: help, target: "_blank", rel: "noopener", "data-testid": "error-help", text: t("error.help"), "aria-label": label }));
  }
  return actions;
}

/** The button counts down what the server asked to wait; it can be pressed earlier. */
function retryButton(waitS, retry) {
  const button = make("button", { type: "button", "data-testid": "error-retry", onclick: retry });
  const readyAt = performance.now() + waitS * 1000;
  const write = () => {
    const seconds = Math.ceil((readyAt - performance.now()) / 1000);
    button.textContent = seconds > 0 ? t("error.retry_in", { seconds }) : t("error.retry");
    if (seconds <= 0) clearInterval(countdown);
  };
  write();
  if (waitS > 0) countdown = setInterval(write, 500);
  return button;
}

/** The focus goes to the field that is to be changed, where there is one. */
function goTo(error) {
  if (error.kind === "key") {
    byId("key-row").hidden = false;
    byId("key").setAttribute("aria-invalid", "true");
    byId("key").focus();
  } else if (error.kind === "model") {
    byId("model").focus();
  } else if (error.kind === "prompt") {
    fieldOf(error.field)?.focus();
  }
}

function fieldOf(field) {
  const name = (field ?? "").split(".").pop();
  const id = { text: "text", prompt: "text", prompts: "text", region: "x1", num_beams: "num-beams", max_new_tokens: "max-new-tokens" }[name];
  const element = id && byId(id);
  if (element?.closest("details")) element.closest("details").open = true;
  return element && element.closest("[hidden]") === null ? element : null;
}
