// Runs before the page is painted, so that no light page flashes in a dark room: the theme and the language.
"use strict";
{
  const kept = (name) => { try { return localStorage.getItem(name); } catch { return null; } };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => kept("striate-theme") ?? (dark.matches ? "dark" : "light");
  const root = document.documentElement;
  root.dataset.theme = theme();
  root.lang = kept("striate-language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  dark.addEventListener("change", () => {
    root.dataset.theme = theme();
    dispatchEvent(new Event("theme"));
  });
}
