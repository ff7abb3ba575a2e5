"use strict";
// In the head, so that the page never appears in the other scheme first.
try {
  const kept = localStorage.getItem("hvdtools-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch { /* storage is blocked */ }
