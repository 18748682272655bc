/** Theme and language: the buttons of a page that change them. */
import { byId, icon } from "./elements.js";
import { language, languages, setLanguage, t } from "./i18n.js";
import { remember } from "./stored.js";

/** Make the buttons for theme and language work. */
export function offerThemeAndLanguage() {
  const isDark = () => (document.documentElement.dataset.theme ?? systemTheme()) === "dark";
  const render = () => {
    byId("theme").replaceChildren(icon(isDark() ? "sun" : "moon"));
    byId("theme").setAttribute("aria-label", t(isDark() ? "page.light" : "page.dark"));
    byId("theme").title = t(isDark() ? "page.light" : "page.dark");
    byId("language").lang = language() === "ko" ? "en" : "ko";
    byId("language").textContent = t("page.language");
  };
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    remember("browser", "theme", document.documentElement.dataset.theme);
    render();
  });
  byId("language").addEventListener("click", () => setLanguage(language() === "ko" ? "en" : "ko"));
  languages.addEventListener("change", render);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  render();
}

function systemTheme() {
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}
