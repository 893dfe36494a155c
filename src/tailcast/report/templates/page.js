"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // A link to a query opens it.
  const reveal = () => {
    let place = null;
    try { place = document.getElementById(decodeURIComponent(location.hash.slice(1))); } catch { return; }
    if (!(place instanceof HTMLDetailsElement)) return;
    place.open = true;
    place.scrollIntoView();
    place.firstElementChild.focus({ preventScroll: true });
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Paper shows everything but completions.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open]):not(.completions)");
    opened.forEach((one) => { one.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((one) => { one.open = false; }));

  // Headings sort their table.
  const value = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent.trim().toLowerCase();
  };
  const sort = (table, head, column) => {
    const falling = head.getAttribute("aria-sort") !== "descending";
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      return (typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true })) * (falling ? -1 : 1);
    });
    all("th[aria-sort]", table).forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    body.append(...rows);
  };
  all("table.sortable").forEach((table) => {
    all("thead th", table).forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sort(table, head, column));
      head.replaceChildren(button);
    });
  });

  // Rows are found by words and verdict.
  all("form.filter").forEach((form) => {
    const rows = all("tbody tr", form.parentElement.querySelector("table.sortable"));
    const apply = () => {
      const find = form.elements.find.value.trim().toLowerCase();
      const verdict = form.elements.verdict.value;
      let shown = 0;
      for (const row of rows) {
        const fits = row.textContent.toLowerCase().includes(find) && (!verdict || row.dataset.verdict === verdict);
        row.hidden = !fits;
        shown += fits;
      }
      form.querySelector("output").textContent = `${shown} of ${rows.length} queries`;
    };
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  });

  // Calls a day, days and a risk make expected hits, chances and a waiting time.
  const two = (x) => Number(x.toPrecision(2));
  const three = (x) => Number(x.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
  const percent = (x) => x >= 0.9995 ? "over 99.9%" : x > 0 && x < 1e-5 ? x.toExponential(1) : `${Number(x * 100).toPrecision(2)}%`;
  const duration = (days) => {
    if (!Number.isFinite(days)) return "never";
    for (const [unit, size] of [["years", 365.25], ["days", 1], ["hours", 1 / 24], ["minutes", 1 / 1440]]) {
      if (days >= size) return `${two(days / size).toLocaleString("en")} ${unit}`;
    }
    return `${two(days * 86400)} seconds`;
  };
  const chance = (p, calls) => -Math.expm1(calls * Math.log1p(-Math.min(p, 1)));
  all("form.calculator").forEach((form) => {
    const table = form.parentElement.querySelector("table.calculated");
    const fill = (name, values, write) => all(`[data-cell="${name}"]`, table).forEach((cell, i) => {
      cell.dataset.value = values[i];
      cell.textContent = write(values[i]);
    });
    const apply = () => {
      const [calls, days] = [Number(form.elements.calls.value), Number(form.elements.days.value)];
      if (!(calls > 0 && days > 0)) return;
      const risks = form.elements.risk.value.split(" ").map(Number);
      const asked = form.elements.risk.selectedOptions[0].textContent;
      table.caption.textContent = `${calls.toLocaleString("en")} calls a day, ${days.toLocaleString("en")} days, ${asked}`;
      fill("daily", risks.map((p) => p * calls), three);
      fill("period", risks.map((p) => p * calls * days), three);
      fill("chance", risks.map((p) => chance(p, calls)), percent);
      fill("chances", risks.map((p) => chance(p, calls * days)), percent);
      fill("wait", risks.map((p) => 1 / (p * calls)), duration);
    };
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
  });
})();
