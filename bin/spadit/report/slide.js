// The gene table: sort by a column (click or keyboard on its heading), filter by name, class and role.
"use strict";
(() => {
  const table = document.getElementById("genes");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const value = (row, k) => row.cells[k].dataset.value ?? row.cells[k].textContent;
  table.querySelectorAll("th button").forEach((button, k) => {
    button.addEventListener("click", () => {
      const th = button.parentElement;
      const numeric = th.classList.contains("num");
      const current = th.getAttribute("aria-sort");
      const up = current ? current === "descending" : !numeric; // numbers start with the highest
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => {
        const x = value(a, k),
          y = value(b, k);
        if (!numeric) return (up ? 1 : -1) * x.localeCompare(y, undefined, { numeric: true });
        if (x === "" || y === "") return (x === "") - (y === ""); // what has no value stays at the end
        return (up ? 1 : -1) * (Number(x) - Number(y));
      });
      body.append(...rows);
      tell();
    });
  });
  const filter = document.getElementById("filter");
  const ofClass = document.getElementById("of-class");
  const ofRole = document.getElementById("of-role");
  const shown = document.getElementById("shown");
  const tell = () => {
    const names = Array.from(body.rows, (row) => (row.hidden ? null : row.cells[0].textContent)).filter(
      (name) => name !== null,
    );
    document.dispatchEvent(new CustomEvent("spadit-genes", { detail: names })); // the explorer goes through them in this order
  };
  const sift = () => {
    const wanted = filter.value.trim().toLowerCase();
    let n = 0;
    for (const row of rows) {
      const measured = row.cells[1].textContent === "not measured" ? "not measured" : "measured";
      row.hidden =
        !row.cells[0].textContent.toLowerCase().includes(wanted) ||
        (ofClass.value !== "" && row.cells[3].textContent !== ofClass.value) ||
        (ofRole.value !== "" && measured !== ofRole.value);
      n += !row.hidden;
    }
    shown.textContent = n < rows.length ? `${n.toLocaleString("en")} of ${rows.length.toLocaleString("en")} genes` : "";
    tell();
  };
  for (const field of [filter, ofClass, ofRole]) field.addEventListener("input", sift);
  addEventListener("DOMContentLoaded", tell); // once the explorer listens
  document.getElementById("tools").hidden = false;
})();
