"use strict";
// The table of cells: sort by a heading, filter by text and by the values of inputs.

const report = JSON.parse(document.getElementById("data").textContent);
report.shown = report.rows; // the rows that the filters keep, in the order of the sweep

const cellTable = {
  element: document.getElementById("cell-table"),
  form: document.getElementById("filters"),
  listeners: [],

  start() {
    this.body = this.element.tBodies[0];
    this.lines = [...this.body.rows];
    this.headings = [...this.element.tHead.rows[0].cells];
    this.headings.forEach((heading) => {
      heading.querySelector("button").addEventListener("click", () => this.sort(heading));
    });
    // Some browsers report a choice from a list as a change only.
    ["input", "change"].forEach((kind) => this.form.addEventListener(kind, () => this.filter()));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("reset", () => setTimeout(() => this.filter())); // after the reset
  },

  // Sort by a column: numbers begin with the largest, text with A; a missing value comes last.
  sort(heading) {
    const { numeric, name } = report.columns[this.headings.indexOf(heading)];
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    this.headings.forEach((each) => each.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const value = (line) => report.rows[Number(line.dataset.row)][name];
    const missing = (found) => found === null || found === "";
    const compare = (a, b) => {
      const [left, right] = [value(a), value(b)];
      if (missing(left) || missing(right)) return missing(left) - missing(right);
      return sign * (numeric ? left - right : String(left).localeCompare(String(right)));
    };
    this.body.append(...[...this.lines].sort(compare));
  },

  filter() {
    const words = document.getElementById("filter-text").value.toLowerCase().split(/\s+/);
    const wanted = [...this.form.querySelectorAll("select")].filter((each) => each.value);
    const places = wanted.map((each) =>
      report.columns.findIndex((column) => column.name === each.dataset.column));
    const kept = this.lines.filter((line) => {
      const text = line.textContent.toLowerCase();
      const matches =
        words.every((word) => text.includes(word)) &&
        wanted.every((each, i) => line.cells[places[i]].textContent === each.value);
      line.hidden = !matches;
      return matches;
    });
    report.shown = kept.map((line) => report.rows[Number(line.dataset.row)]);
    document.getElementById("shown").value = `${kept.length} of ${this.lines.length} cells`;
    this.listeners.forEach((listener) => listener());
  },
};
cellTable.start();
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
});
