"""Grouped bars of throughput or sharing: one group per workload and one bar per scheduler."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bssim.experiments.plots.style import (
    DOUBLE_IN,
    SINGLE_IN,
    legend_columns,
    new_figure,
    scheduler_colour,
    scheduler_hatches,
    scheduler_order,
    styled,
)

CHARACTER_IN = 0.075
"""Inches per character of a tick label, including a part of the gap to the next label."""
LEGEND_ROW_IN = 0.14
"""Height of a legend row in inches; every figure has room for two rows."""
LONGEST_LABEL = 32
"""The most characters of a workload name under its bars."""
MAX_WORKLOADS = 12
"""The most groups of bars that are readable."""


def throughput_figure(runs: pd.DataFrame) -> Figure:
    """Return throughput by workload and scheduler, with the practical optimum as a black line.

    ``runs`` are rows of runs.csv with status ok and one setting. Several seeds are shown as their
    mean and range.
    """
    figure = _grouped(runs, "throughput_tok_s", "optimum_tok_s", 1e-3, "practical optimum")
    figure.axes[0].set_ylabel("throughput (1000 tokens/s)")
    return figure


def sharing_figure(runs: pd.DataFrame) -> Figure:
    """Return sharing by workload and scheduler, with the largest possible as a black line."""
    figure = _grouped(runs, "sharing", "sharing_max", 100.0, "largest possible")
    figure.axes[0].set_ylabel("prompt tokens cached (%)")
    return figure


def _grouped(
    runs: pd.DataFrame, column: str, limit_column: str, scale: float, limit_label: str
) -> Figure:
    workloads = list(dict.fromkeys(runs["workload"]))
    schedulers = scheduler_order(runs["scheduler"])
    with styled():
        figure = new_figure(SINGLE_IN if len(workloads) <= 2 else DOUBLE_IN, 2.3)
        axes = figure.add_subplot()
        width = 0.84 / len(schedulers)
        hatches = scheduler_hatches(schedulers)
        for i, scheduler in enumerate(schedulers):
            values = runs[runs["scheduler"] == scheduler].groupby("workload")[column]
            stats = values.agg(["mean", "min", "max"]).reindex(workloads).astype(float) * scale
            x = np.arange(len(workloads)) + (i + 0.5) * width - 0.42
            axes.bar(x, stats["mean"], 0.92 * width, **_look(scheduler, hatches))
            spread = stats[["min", "max"]].sub(stats["mean"], axis=0).abs().T.to_numpy()
            if np.nanmax(spread) > 0:  # NaN: a workload without a result
                axes.errorbar(x, stats["mean"], spread, fmt="none", ecolor="black", lw=0.6)
        limits = runs.groupby("workload")[limit_column].max().reindex(workloads).astype(float)
        at = np.arange(len(workloads))
        axes.hlines(limits * scale, at - 0.45, at + 0.45, color="black", linewidth=1.2)
        labels = [_cut(name) for name in workloads]
        axes.set_xticks(at, labels)
        if len(labels) * CHARACTER_IN * max(map(len, labels)) > figure.get_figwidth():
            axes.set_xticks(at, labels, rotation=35, ha="right", rotation_mode="anchor")
            figure.set_figheight(figure.get_figheight() + 0.03 * max(map(len, labels)))
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, None)
        _legend(figure, axes, schedulers, limit_label)
    return figure


def _cut(name: str) -> str:
    """Shorten a long name by its middle, to leave room for the bars."""
    half = LONGEST_LABEL // 2
    return name if len(name) <= LONGEST_LABEL else f"{name[:half]}…{name[-half:]}"


def _look(scheduler: str, hatches: Mapping[str, str]) -> dict[str, Any]:
    """Return the style of a scheduler's bars; hatches have the colour of the edge."""
    colour = scheduler_colour(scheduler)
    if hatch := hatches[scheduler]:
        return {"facecolor": colour, "edgecolor": "#555555", "linewidth": 0, "hatch": hatch}
    return {"color": colour}


def _legend(figure: Figure, axes: Axes, schedulers: list[str], limit_label: str) -> None:
    hatches = scheduler_hatches(schedulers)
    handles: list[object] = [
        axes.bar(0, 0, label=name, **_look(name, hatches)) for name in schedulers
    ]
    handles.append(Line2D([], [], color="black", linewidth=1.2, label=limit_label))
    columns = legend_columns([*schedulers, limit_label], figure.get_figwidth())
    rows = math.ceil(len(handles) / columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW_IN * max(0, rows - 2))
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=columns,
        handlelength=1.2,
        columnspacing=1.2,
    )
