/** The pictures of the session as small buttons that bring them back with their answers. */
import { byId, make } from "./elements.js";
import { languages, t } from "./i18n.js";

/**
 * Keep the strip in step with the session.
 * @param {import("./session.js").Session} session
 */
export function showHistory(session) {
  const render = () => {
    const pictures = session.pictures;
    const hadFocus = byId("history").contains(document.activeElement);
    byId("history-strip").hidden = pictures.length < 2;
    byId("history").replaceChildren(...pictures.map((picture) => make("li", {}, button(picture, session))));
    if (hadFocus) byId("history").querySelector('[aria-pressed="true"]')?.focus();
  };
  session.addEventListener("history", render);
  session.addEventListener("picture", () => markExample(session.current));
  languages.addEventListener("change", render);
}

/** Show which example the picture is, if it is one. */
function markExample(picture) {
  for (const button of byId("examples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(picture.isExample && button.title === picture.name));
  }
}

function button(picture, session) {
  const label = t("picture.history_item", { name: picture.name, count: picture.layers.length });
  const isShown = picture === session.current;
  const thumbnail = make("img", { src: picture.thumbnailUrl, alt: "", loading: "lazy", decoding: "async", draggable: "false" });
  const count = make("span", { class: "count", "aria-hidden": "true", text: picture.layers.length || "" });
  return make("button", { type: "button", class: "thumbnail", "data-testid": "history-item", "aria-label": label, "aria-pressed": String(isShown),
    title: picture.name, onclick: () => session.show(picture.id) }, thumbnail, count);
}
