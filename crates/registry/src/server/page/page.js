// SPDX-License-Identifier: Apache-2.0
// What HTML can't: copying, a theme that is remembered, and a key for the search.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  // A browser that keeps nothing still follows the system and the address.
  const kept = { get: () => null, set: () => {} };
  try {
    const store = window.localStorage;
    kept.get = () => store.getItem("theme");
    kept.set = (theme) => store.setItem("theme", theme);
  } catch {}
  // Before anything is painted.
  const theme = kept.get();
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;

  const copy = async (element) => {
    const text = element.textContent.trim();
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    // Over plain HTTP from another machine there is no clipboard, but what is selected can be copied.
    const selection = window.getSelection();
    selection.selectAllChildren(element);
    if (!document.execCommand("copy")) throw new Error("not copied");
    selection.removeAllRanges();
  };

  document.addEventListener("click", async (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const button = target?.closest("button.copy");
    if (button) {
      try {
        await copy(button.previousElementSibling);
      } catch {
        window.getSelection().selectAllChildren(button.previousElementSibling);
        return;
      }
      button.classList.add("done");
      const told = document.getElementById("told");
      told.textContent = document.body.dataset.copied;
      setTimeout(() => {
        button.classList.remove("done");
        told.textContent = "";
      }, 1500);
      return;
    }
    const change = target?.closest("a[data-theme-to]");
    if (change && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      const wanted = change.dataset.themeTo;
      root.dataset.theme = wanted;
      try { kept.set(wanted); } catch {}
      // The one that was pressed has gone; the keyboard stays where it was.
      document.querySelector(`a[data-theme-to]:not([data-theme-to="${wanted}"])`).focus();
    }
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof Element && event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    const search = document.getElementById("search");
    search.focus();
    search.select();
  });
})();
