"""Compute and memory seconds per step over time, as in figure 3 of the paper."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bssim.experiments.plots.heading import head
from bssim.experiments.plots.style import (
    COMPUTE_COLOUR,
    MEMORY_COLOUR,
    SINGLE_IN,
    new_figure,
    scheduler_order,
    styled,
)
from bssim.experiments.sweeps import ONE_REPLICA, Shown, shown_replicas

SPIKE = 1.5
"""Panels end at this multiple of what 99 % of their points reach, if a few points are higher."""


def steps_figure(
    timelines: Mapping[str, pd.DataFrame],
    title: str,
    kinds: Mapping[str, range] = ONE_REPLICA,
    conditions: str = "",
) -> Figure:
    """Return one panel per scheduler and kind of replica; panels of a kind have common axes.

    ``timelines`` maps a scheduler to its downsampled timeline. ``kinds`` maps a kind of replica to
    its numbers in the timeline. The first replica of a kind that had work is drawn, and labelled
    unless the kind is "". Schedulers with equal steps share a panel.
    """
    shown = _merged(
        [
            panel
            for name in scheduler_order(timelines)
            for panel in shown_replicas(name, timelines[name], kinds)
        ]
    )
    end_h = max(_end_s(t) for _, _, t in shown) / 3600
    unit, divisor = ("h", 3600) if end_h >= 0.5 else ("min", 60) if end_h > 1 / 30 else ("s", 1)
    with styled():
        figure = new_figure(SINGLE_IN, 0.55 + 0.8 * len(shown))
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        tops = {kind: _top_ms(t for k, _, t in shown if k == kind) for kind in kinds}
        for (kind, label, timeline), axes in zip(shown, panels, strict=True):
            at = timeline["start_s"] / divisor
            for column, colour in (("compute", COMPUTE_COLOUR), ("memory", MEMORY_COLOUR)):
                ms = timeline[f"{column}_s"] * 1e3
                axes.plot(at, ms.clip(upper=tops[kind]), color=colour, lw=0.8, label=column)
            most = 1e3 * float(timeline[["compute_s", "memory_s"]].max().max())
            higher = f" (up to {most:,.0f} ms)" if most > tops[kind] else ""
            axes.set_title(label + higher, loc="left", pad=2)
            axes.set_ylim(0, 1.05 * tops[kind])  # decode steps are shorter than prefill steps
        panels[0].set_xlim(0, None)  # after all lines, because it ends autoscaling
        panels[-1].set_xlabel(f"simulated time ({unit})")
        figure.supylabel("ms per step", fontsize=8)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        head(figure, _message(title, timelines, divisor, unit), conditions)
    return figure


def _end_s(timeline: pd.DataFrame) -> float:
    return float(timeline["start_s"].iloc[-1])


def _merged(shown: list[Shown]) -> list[Shown]:
    """Return the panels, equal ones of a kind as one with all their labels."""
    merged: list[Shown] = []
    columns = ["start_s", "compute_s", "memory_s"]
    for panel in shown:
        for i, other in enumerate(merged):
            mine, its = (p.steps[columns].to_numpy() for p in (panel, other))
            if panel.kind == other.kind and np.array_equal(mine, its):
                merged[i] = other._replace(label=f"{other.label} = {panel.label}")
                break
        else:
            merged.append(panel)
    return merged


def _top_ms(timelines: Iterable[pd.DataFrame]) -> float:
    """Return the end of the vertical axis; see `SPIKE`."""
    values = [t[["compute_s", "memory_s"]].to_numpy().ravel() for t in timelines]
    if not values:
        return 1.0
    found = 1e3 * np.concatenate(values)
    usual = SPIKE * float(np.percentile(found, 99))
    return min(float(found.max()), usual) if usual > 0 else max(float(found.max()), 1e-9)


def _message(title: str, timelines: Mapping[str, pd.DataFrame], divisor: float, unit: str) -> str:
    ends = {name: _end_s(timelines[name]) for name in scheduler_order(timelines)}
    first, last = min(ends, key=ends.__getitem__), max(ends, key=ends.__getitem__)
    if first == last:
        return title
    after, longest = (f"{ends[name] / divisor:.2f} {unit}" for name in (first, last))
    return f"{title}: {first} ends first, after {after}, and {last} last, after {longest}"
