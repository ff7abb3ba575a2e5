"use strict";
// In the head, so that a page is never shown in the scheme that was not chosen.
try {
  const kept = localStorage.getItem("hvdtools-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch { /* a browser that keeps nothing */ }
