// Sets the theme that was chosen last, before anything is drawn. A classic script on purpose: modules run after the first paint.
try {
  const chosen = localStorage.getItem("florence2.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // storage can be switched off: the system's theme then
}
