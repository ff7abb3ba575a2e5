"use strict";
(() => {
  const root = document.documentElement;
  const KEPT = "hvdtools-theme";

  // The color scheme: the system's until the button is used; the choice is stored.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const toggle = document.querySelector(".toggle");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => { toggle.textContent = dark() ? "Light colors" : "Dark colors"; };
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem(KEPT, root.dataset.theme); } catch { /* storage is blocked */ }
    name();
  });
  system.addEventListener("change", name);
  name();

  // Tables: a button in every heading sorts by its column, and the next click reverses it.
  // Failed rows stay last, and before them those with an empty cell in the column.
  const text = new Intl.Collator("en", { numeric: true });
  const key = (row, column) => row.cells[column].dataset.value;
  const compare = (column, number, sign) => (one, other) => {
    const failed = Number("failed" in one.dataset) - Number("failed" in other.dataset);
    if (failed) return failed;
    const [a, b] = [key(one, column), key(other, column)];
    if (a === "" || b === "") return Number(a === "") - Number(b === "");
    return sign * (number ? Number(a) - Number(b) : text.compare(a, b));
  };
  for (const table of document.querySelectorAll("table.sorts")) {
    const body = table.tBodies[0];
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      const number = heading.dataset.kind === "number";
      button.addEventListener("click", () => {
        const was = heading.getAttribute("aria-sort");
        const now = was === "ascending" ? "descending" : "ascending";
        for (const each of headings) each.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", now);
        body.append(...[...body.rows].sort(compare(column, number, now === "ascending" ? 1 : -1)));
      });
    });
  }

  // Panels: without this script all are shown; with it, the selected one.
  for (const chooser of document.querySelectorAll(".chooser")) {
    const panels = [...document.querySelectorAll(`.panel[data-of="${chooser.dataset.of}"]`)];
    const select = chooser.querySelector("select");
    const show = () => { for (const panel of panels) panel.hidden = panel.id !== select.value; };
    chooser.hidden = false;
    select.addEventListener("change", show);
    show();
  }

  // Paper has no disclosure triangles.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of closed) each.open = false; });
})();
