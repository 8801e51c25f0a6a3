// What pages do beyond showing: tables that sort, filter, unfold and are saved. Without it everything is shown.
"use strict";
const root = document.documentElement;
addEventListener("error", (event) => { root.dataset.error = event.message; });
const { compare } = new Intl.Collator(undefined, { numeric: true });

// Sorting

function sortBy(table, head, index) {
  const first = head.dataset.first, now = head.getAttribute("aria-sort");
  const other = first === "ascending" ? "descending" : "ascending";
  const order = now === first ? other : first;
  const sign = order === "ascending" ? 1 : -1;
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [row.cells[index].dataset.value, row]);
  const numbers = keyed.every(([value]) => !Number.isNaN(Number(value)));
  keyed.sort(([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // without a value: last, either way
    return sign * (numbers ? a - b : compare(a, b));
  });
  for (const [, row] of keyed) body.append(row);
  table.dispatchEvent(new Event("sorted"));
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    head.querySelector("button").addEventListener("click", () => sortBy(table, head, index));
  });
}

// Filtering, unfolding, saving

function setUp(box) {
  const table = box.querySelector("table"), body = table.tBodies[0];
  const search = box.querySelector("input[type=search]"), fields = [...box.querySelectorAll("[data-column]")];
  const told = box.querySelector("output"), more = box.querySelector(".more"), save = box.querySelector(".save");
  const step = Number(box.dataset.step) || Infinity;
  const texts = new Map([...body.rows].map((row) => [row, ""]));
  let limit = step, next = step, found = [];

  const number = (n) => n.toLocaleString("en");
  const textOf = (row) => {
    if (!texts.get(row)) texts.set(row, [...row.cells].map((cell) => `${cell.dataset.value} ${cell.textContent}`).join(" ").toLowerCase());
    return texts.get(row);
  };
  const fits = (row, words) =>
    words.every((word) => textOf(row).includes(word)) &&
    fields.every((field) => {
      const value = row.cells[field.dataset.column].dataset.value;
      if (field.value === "") return true;
      return field.type === "number" ? value !== "" && Number(value) >= Number(field.value) : value === field.value;
    });
  const show = () => {
    const words = search ? search.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
    found = [...body.rows].filter((row) => fits(row, words));
    const shown = new Set(found.slice(0, limit));
    for (const row of body.rows) row.hidden = !shown.has(row);
    const all = texts.size, rest = found.length - shown.size;
    const of = found.length < all ? `${number(found.length)} found, ${number(all)} in all` : `${number(all)}`;
    told.textContent = rest ? `${number(shown.size)} shown of ${of}` : found.length < all || search ? of : "";
    if (more) {
      more.hidden = rest === 0;
      next = rest < 2 * step ? rest : step;
      more.textContent = next === rest ? `show the other ${number(rest)}` : `show ${number(step)} more of ${number(rest)}`;
    }
  };
  for (const field of [search, ...fields].filter(Boolean)) {
    field.addEventListener("input", () => { limit = step; show(); });
  }
  table.addEventListener("sorted", show);
  if (more) {
    more.addEventListener("click", () => {
      limit += next;
      show();
      if (more.hidden) box.querySelector(".scroll").focus(); // a hidden button would lose the keyboard's place
    });
  }
  if (save) save.addEventListener("click", () => download(save.dataset.file, csv(table, found)));
  show();
}

function csv(table, rows) {
  const heads = [...table.tHead.rows[0].cells].map((head) => head.dataset.key);
  const lines = rows.map((row) => [...row.cells].map((cell) => cell.dataset.value));
  return [heads, ...lines].map((line) => line.map(quote).join(",") + "\n").join("");
}

function quote(value) {
  const formula = /^[=+\-@]/.test(value) && Number.isNaN(Number(value)); // a spreadsheet would run it
  const text = formula ? `'${value}` : value;
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" })); // the mark tells spreadsheets that it is UTF-8
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // some browsers read it only after the click
}

// A budget that the reader moves

function setUpBudget(box) {
  const range = box.querySelector("input[type=range]");
  const field = box.querySelector("input[type=number]"), told = box.querySelector("output");
  const charts = [...box.querySelectorAll("svg[data-low]")];
  const [low, high] = [Math.log(box.dataset.low), Math.log(box.dataset.high)];
  const members = [...charts[0].querySelectorAll("[data-name]")].map(({ dataset }) => ({ ...dataset, ms: Number(dataset.ms), gain: Number(dataset.gain) }));
  const places = charts.map(({ dataset: { left, right, low: from, high: to } }) => (ms) =>
    Number(left) + (Number(right) - Number(left)) * (Math.log(ms) - Math.log(from)) / (Math.log(to) - Math.log(from)));
  const spots = charts.map((chart) => [...chart.querySelectorAll("[data-ms]")].map((spot) => [Number(spot.dataset.ms), spot]));
  let last = Infinity;
  members.sort((a, b) => b.gain - a.gain || a.ms - b.ms);

  const show = (ms) => {
    if (!(ms > 0)) return;
    charts.forEach((chart, index) => {
      const line = chart.querySelector(".budget-line"), [left, right] = [Number(chart.dataset.left), Number(chart.dataset.right)];
      const x = Math.min(Math.max(places[index](ms), left), right);
      line.removeAttribute("visibility");
      for (const end of ["x1", "x2"]) line.firstElementChild.setAttribute(end, x.toFixed(1));
      for (const [own, spot] of spots[index]) if (own > last !== own > ms) spot.classList.toggle("over", own > ms); // of thousands, the few that change
    });
    last = ms;
    const best = members.find((member) => member.ms <= ms);
    told.textContent = best ? `${best.name}: ${best.gain.toFixed(1)} %, p99 at most ${best.ms.toPrecision(3)} ms` : "nothing fits";
    range.setAttribute("aria-valuetext", `${ms.toPrecision(3)} ms`);
  };
  const move = (ms, from) => {
    if (from !== range) range.value = Math.round(1000 * (Math.log(ms) - low) / (high - low));
    if (from !== field) field.value = Number(ms.toPrecision(3));
    show(ms);
  };
  range.addEventListener("input", () => move(Math.exp(low + (high - low) * range.value / 1000), range));
  field.addEventListener("input", () => { if (Number(field.value) > 0) move(Number(field.value), field); });
  for (const chart of charts) {
    const drag = (event) => {
      const at = chart.getBoundingClientRect(), { left, right, low: from, high: to } = chart.dataset;
      const x = (event.clientX - at.left) / at.width * chart.viewBox.baseVal.width;
      const share = Math.min(Math.max((x - left) / (right - left), 0), 1);
      move(Math.exp(Math.log(from) + share * (Math.log(to) - Math.log(from))), chart);
    };
    chart.addEventListener("pointerdown", (event) => { chart.setPointerCapture(event.pointerId); drag(event); });
    chart.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
  }
  if (box.dataset.budget) move(Number(box.dataset.budget));
  else {
    field.placeholder = "p99";
    told.textContent = "move it here, or drag in the picture: what is most accurate within it is told here";
  }
}

for (const box of document.querySelectorAll(".budgeted")) setUpBudget(box);
for (const box of document.querySelectorAll(".tabled")) setUp(box);
root.dataset.ready = "yes";
