"use strict";
// The charts of results: bars for each workload, and any value against any other.

const chartConfig = {
  background: null,
  font: "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif",
  view: { stroke: null },
  axis: {
    labelColor: "var(--fg)", titleColor: "var(--quiet)", gridColor: "var(--line)",
    domainColor: "var(--edge)", tickColor: "var(--edge)", labelFontSize: 11, titleFontSize: 11,
    titleFontWeight: "normal", gridOpacity: 0.6,
  },
  legend: { labelColor: "var(--fg)", titleColor: "var(--quiet)", orient: "top", symbolStrokeWidth: 3 },
  text: { color: "var(--fg)" },
};

// Draw a chart; `description` is its text for screen readers.
function draw(element, spec, description) {
  const whole = { ...spec, description, config: chartConfig, autosize: { type: "fit", contains: "padding" } };
  return vegaEmbed(element, whole, { actions: false, renderer: "svg", tooltip: { disableDefaultStyle: true } });
}

function addOptions(select, options, chosen) {
  options.forEach(([value, text]) => select.add(new Option(text, value, false, value === chosen)));
}

const numericColumns = report.columns.filter((column) => column.numeric);
const heading = (name) => report.columns.find((column) => column.name === name)?.heading ?? name;
const isShare = (name) => name.startsWith("shar") || name.endsWith("_share");
const schedulerScale = { domain: Object.keys(report.colours), range: Object.values(report.colours) };
const numberFormat = (name) => (isShare(name) ? ".1%" : "~s");
// Without the expression, the unit of the other ticks would make 0 "0k".
const numberAxis = (name, tickCount) => ({
  format: numberFormat(name), tickCount, labelExpr: "datum.value === 0 ? '0' : datum.label",
});
const barFormat = (name) => (isShare(name) ? ".1%" : name.endsWith("tok_s") ? ",.0f" : ",.4~r");
const LIMITS = { throughput_tok_s: "optimum_tok_s", sharing: "sharing_max" };
const LIMIT_NAMES = { optimum_tok_s: "practical optimum", sharing_max: "largest possible sharing" };

const resultCharts = {
  setting: document.getElementById("setting"),
  measure: document.getElementById("measure"),
  x: document.getElementById("x-column"),
  y: document.getElementById("y-column"),

  start() {
    const settings = [...new Set(report.rows.map((row) => row.setting))];
    addOptions(this.setting, settings.map((each) => [each, each]));
    document.getElementById("setting-label").hidden = settings.length < 2;
    const names = numericColumns.map((column) => [column.name, column.heading]);
    const results = names.filter(([name]) => !report.columns.find((c) => c.name === name).input);
    addOptions(this.measure, results, "throughput_tok_s");
    addOptions(this.x, names, names.some(([name]) => name === "sharing") ? "sharing" : "makespan_s");
    addOptions(this.y, names, "share_of_bound");
    [this.setting, this.measure].forEach((each) => each.addEventListener("change", () => this.bars()));
    [this.x, this.y].forEach((each) => each.addEventListener("change", () => this.scatter()));
    cellTable.listeners.push(() => { this.bars(); this.scatter(); });
    this.bars();
    this.scatter();
  },

  // One chart per workload; equal scales, so that bars compare across charts.
  bars() {
    const name = this.measure.value;
    const limit = LIMITS[name];
    const rows = report.shown.filter((row) => row.setting === this.setting.value && row[name] !== null);
    const most = Math.max(0, ...rows.map((row) => Math.max(row[name], row[limit] ?? 0)));
    const figures = [...new Set(rows.map((row) => row.workload))].map((workload) => {
      const figure = document.createElement("figure");
      const title = document.createElement("h3");
      title.textContent = workload;
      const chart = document.createElement("div");
      chart.className = "chart";
      figure.append(title, chart);
      return [figure, chart, rows.filter((row) => row.workload === workload)];
    });
    const several = new Set(rows.map((row) => row.seed)).size > 1;
    const lines = [
      ...(rows.some((row) => (row[limit] ?? null) !== null) ? [`Dashed line: ${LIMIT_NAMES[limit]}.`] : []),
      ...(several ? ["Solid line: the range over seeds; the bar and its number are the mean."] : []),
    ];
    const names = document.getElementById("bar-lines");
    names.textContent = lines.join(" ");
    names.hidden = !lines.length;
    document.getElementById("bars").replaceChildren(...figures.map(([figure]) => figure));
    figures.forEach(([, chart, mine]) => draw(chart, this.barSpec(mine, name, limit, most),
      `Bars: ${heading(name)} of each scheduler on ${mine[0].workload}; the table of cells has the numbers.`));
  },

  barSpec(rows, name, limit, most) {
    const y = { field: "scheduler", type: "nominal", sort: schedulerScale.domain, title: null };
    const x = {
      field: name, type: "quantitative", aggregate: "mean", title: heading(name),
      scale: { domainMax: most * 1.35 }, axis: numberAxis(name, 4),
    };
    const tooltip = [
      { field: "scheduler" },
      { field: name, aggregate: "mean", title: heading(name), format: barFormat(name) },
      { aggregate: "count", title: "cells" },
    ];
    const layer = [
      {
        mark: { type: "bar", stroke: "var(--edge)", strokeWidth: 0.5, height: { band: 0.8 } },
        encoding: { color: { field: "scheduler", scale: schedulerScale, legend: null }, tooltip },
      },
      {
        mark: { type: "text", align: "right", fontSize: 11 },
        encoding: { x: { value: "width" }, text: { field: name, aggregate: "mean", format: barFormat(name) } },
      },
    ];
    if (new Set(rows.map((row) => row.seed)).size > 1) {
      layer.push({
        mark: { type: "rule", stroke: "var(--fg)" },
        encoding: { x: { field: name, aggregate: "min" }, x2: { field: name, aggregate: "max" } },
      });
    }
    if (limit && rows.some((row) => row[limit] !== null)) {
      const limits = { field: limit, aggregate: "max", title: LIMIT_NAMES[limit], format: barFormat(name) };
      layer.push({
        mark: { type: "rule", stroke: "var(--fg)", strokeWidth: 2, strokeDash: [5, 3] },
        encoding: { y: null, x: { ...x, field: limit, aggregate: "max", title: heading(name) }, tooltip: [limits] },
      });
    }
    const height = 45 + 24 * new Set(rows.map((row) => row.scheduler)).size;
    return { width: "container", height, data: { values: rows }, encoding: { x, y }, layer };
  },

  scatter() {
    const [x, y] = [this.x.value, this.y.value];
    const columns = document.getElementById("scatter").clientWidth < 600 ? 2 : 6;
    const inputs = report.columns.filter((column) => column.input).map((column) => column.name);
    const axis = (name) => ({
      field: name, type: "quantitative", title: heading(name), scale: { zero: false, nice: true },
      axis: numberAxis(name, 6),
    });
    const tooltip = [...new Set([...inputs, x, y])].map((name) => ({
      field: name, title: heading(name),
      ...(numericColumns.some((c) => c.name === name) ? { format: isShare(name) ? ".2%" : ",.5~r" } : {}),
    }));
    draw(document.getElementById("scatter"), {
      width: "container", height: 300,
      data: { values: report.shown.filter((row) => row[x] !== null && row[y] !== null) },
      mark: { type: "point", filled: true, size: 90, stroke: "var(--edge)", strokeWidth: 0.5, opacity: 0.9 },
      encoding: {
        x: axis(x), y: axis(y), tooltip,
        color: { field: "scheduler", scale: schedulerScale, legend: { columns, title: null } },
        shape: { field: "workload", legend: { columns, title: null, orient: "bottom" } },
      },
    }, `Points: ${heading(y)} against ${heading(x)}, one per cell; the table of cells has the numbers.`);
  },
};
resultCharts.start();
