// The gene table: sort by a column (click or keyboard on its heading), filter by name.
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
    });
  });
  const filter = document.getElementById("filter");
  const shown = document.getElementById("shown");
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let n = 0;
    for (const row of rows) {
      row.hidden = !row.cells[0].textContent.toLowerCase().includes(wanted);
      n += !row.hidden;
    }
    shown.textContent = wanted ? `${n.toLocaleString("en")} of ${rows.length.toLocaleString("en")} genes` : "";
  });
  document.getElementById("tools").hidden = false;
})();
