"use strict";
// Steps over time: one panel per scheduler and kind of replica; all panels show the same range.

const MEASURES = {
  time: ["compute and memory time (ms per step)", [["compute", "compute"], ["memory", "memory"]]],
  tokens: ["prompt and output tokens (per step)", [["prompt", "prompt tokens"], ["decode", "output tokens"]]],
  step: ["duration of a step (ms)", [["step", "duration"]]],
  kv: ["KV tokens held", [["kv", "KV tokens"]]],
  running: ["requests running", [["running", "running"]]],
};
const LINE_COLOURS = [report.compute, "var(--memory)"];

const timelineCharts = {
  group: document.getElementById("timeline-group"),
  measure: document.getElementById("timeline-measure"),
  views: [],

  start() {
    addOptions(this.group, report.timelines.map((group, i) => [String(i), group.label]));
    addOptions(this.measure, Object.entries(MEASURES).map(([key, [text]]) => [key, text]));
    this.group.addEventListener("change", () => { this.range = null; this.draw(); });
    this.measure.addEventListener("change", () => this.draw());
    document.querySelectorAll("[data-zoom]").forEach((button) =>
      button.addEventListener("click", () => this.move(button.dataset.zoom)));
    this.draw();
  },

  async draw() {
    const { label, panels } = report.timelines[Number(this.group.value)];
    const longest = Math.max(...panels.map((panel) => panel.end));
    [this.unit, this.seconds] = longest >= 1800 ? ["h", 3600] : longest > 120 ? ["min", 60] : ["s", 1];
    this.end = longest / this.seconds;
    const [title, lines] = MEASURES[this.measure.value];
    const most = Math.max(...panels.flatMap((panel) => lines.flatMap(([key]) => panel[key])));
    const figures = panels.map((panel) => {
      const figure = document.createElement("figure");
      const heading = document.createElement("h3");
      heading.textContent = panel.label;
      const chart = document.createElement("div");
      chart.className = "chart";
      figure.append(heading, chart);
      return [figure, chart];
    });
    document.getElementById("line-names").replaceChildren(...(lines.length > 1 ? lines : []).map(([, text], i) => {
      const name = document.createElement("span");
      name.textContent = text;
      name.style.setProperty("--line-colour", LINE_COLOURS[i]);
      return name;
    }));
    this.views.forEach((view) => view.finalize());
    this.views = [];
    document.getElementById("timelines").replaceChildren(...figures.map(([figure]) => figure));
    const made = panels.map((panel, i) => draw(figures[i][1], this.spec(panel, lines, most, i === panels.length - 1),
      `Lines: ${title} over simulated time, ${panel.label} on ${label}.`));
    this.views = (await Promise.all(made)).map((result) => result.view);
    this.views.forEach((view) => view.addSignalListener("zoom_t", (_, range) => this.show(range, view)));
    this.show(this.range);
  },

  spec(panel, lines, most, last) {
    const values = panel.t.map((seconds, i) => ({
      t: seconds / this.seconds, ...Object.fromEntries(lines.map(([key]) => [key, panel[key][i]])),
    }));
    const x = {
      field: "t", type: "quantitative", title: last ? `simulated time (${this.unit})` : null,
      scale: { domain: [0, this.end], nice: false }, axis: { tickCount: 6 },
    };
    const scale = { domain: lines.map(([, text]) => text), range: LINE_COLOURS };
    const tooltip = ["t", ...lines.map(([key]) => key)].map((field, i) => ({
      field, type: "quantitative", title: i ? lines[i - 1][1] : this.unit, format: ",.4~r",
    }));
    return {
      width: "container", height: last ? 138 : 120, data: { values }, encoding: { x },
      layer: [
        ...lines.map(([key, text]) => ({
          mark: { type: "line", strokeWidth: 1.4, interpolate: "step-after", clip: true, aria: false },
          encoding: {
            y: { field: key, type: "quantitative", title: null, axis: { tickCount: 3, format: "~s" }, scale: { domain: [0, most] } },
            color: { datum: text, scale, legend: null },
          },
        })),
        {
          params: [{
            name: "zoom", bind: "scales",
            select: { type: "interval", encodings: ["x"], zoom: "wheel![event.ctrlKey || event.metaKey]" },
          }],
          mark: { type: "rule", opacity: 0, strokeWidth: 3, clip: true, aria: false },
          encoding: { tooltip },
        },
      ],
    };
  },

  // Show a range of time, or all of it (null), in every panel except the one that moved already.
  show(range, moved) {
    if (this.showing) return; // the panels below report what they are told
    this.showing = true;
    this.range = range && range.length === 2 ? [Number(range[0]), Number(range[1])] : null;
    const set = this.views.filter((view) => view !== moved).map((view) =>
      view.signal("zoom_t", this.range).runAsync());
    Promise.all(set).finally(() => { this.showing = false; });
    const [from, to] = this.range ?? [0, this.end];
    document.getElementById("zoom-range").value =
      `${from.toPrecision(4)} to ${to.toPrecision(4)} ${this.unit}`;
  },

  move(how) {
    const [from, to] = this.range ?? [0, this.end];
    const width = to - from;
    const about = (middle, wide) => {
      const start = Math.min(Math.max(0, middle - wide / 2), Math.max(0, this.end - wide));
      return [start, Math.min(start + wide, this.end)];
    };
    const middle = (from + to) / 2;
    const range = {
      in: () => about(middle, width / 2),
      out: () => about(middle, width * 2),
      earlier: () => about(middle - width / 2, width),
      later: () => about(middle + width / 2, width),
      all: () => null,
    }[how]();
    this.show(range && range[1] - range[0] < this.end ? range : null);
  },
};
if (report.timelines.length) timelineCharts.start();
