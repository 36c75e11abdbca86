"""Share of the tightest lower bound, one panel per overlap: means over seeds with their range."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bssim.experiments.plots.heading import conditions_of, head, share_range
from bssim.experiments.plots.style import (
    DOUBLE_IN,
    new_figure,
    scheduler_colour,
    scheduler_order,
    styled,
)

LEARNT, KNOWN = "survival", "oracle"
LEGEND_ENTRIES = 8
"""Most entries of a legend that fit the width in one row."""


def shares_figure(runs: pd.DataFrame) -> Figure:
    """Return dots by trace and scheduler; hollow dots are runs with known output lengths.

    ``runs`` are rows of runs.csv with status ok and several overlaps. A scheduler with runs of only
    one estimator does not use output lengths, and its dots are filled.
    """
    overlaps = list(dict.fromkeys(runs["overlap"]))
    workloads = list(dict.fromkeys(runs["workload"]))
    schedulers = scheduler_order(runs["scheduler"])
    with styled():
        figure = new_figure(DOUBLE_IN, 2.4)
        panels = figure.subplots(1, len(overlaps), sharey=True, squeeze=False)[0]
        for axes, overlap in zip(panels, overlaps, strict=True):
            for i, scheduler in enumerate(schedulers):
                mine = runs[(runs["overlap"] == overlap) & (runs["scheduler"] == scheduler)]
                asks = mine["output_lengths"].nunique() > 1
                x = np.arange(len(workloads)) + (i + 0.5) / len(schedulers) * 0.8 - 0.4
                for lengths in (KNOWN, LEARNT) if asks else (None,):
                    part = mine if lengths is None else mine[mine["output_lengths"] == lengths]
                    stats = part.groupby("workload")["share_of_bound"].agg(["mean", "min", "max"])
                    stats = stats.reindex(workloads).astype(float)
                    colour = scheduler_colour(scheduler)
                    axes.vlines(x, stats["min"], stats["max"], color=colour, linewidth=1.0)
                    axes.plot(
                        *(x, stats["mean"], "o"),
                        markersize=4,
                        color=colour,
                        markerfacecolor="white" if lengths == KNOWN else colour,
                    )
            axes.set_title(overlap)
            axes.set_xticks(np.arange(len(workloads)), workloads)
            axes.tick_params(axis="x", length=0)
            axes.grid(axis="y", linewidth=0.3)
            axes.axhline(1.0, color="black", linewidth=1.0)
            _optimum_lines(axes, runs[runs["overlap"] == overlap], workloads)
        panels[0].set_ylabel("share of the tightest bound")
        handles = [
            Line2D([], [], marker="o", ls="", ms=4, color=scheduler_colour(name), label=name)
            for name in schedulers
        ]
        handles.append(
            Line2D([], [], marker="o", ls="", ms=4, color="black", mfc="white", label=KNOWN)
        )
        handles.append(Line2D([], [], color="black", ls=":", label="practical optimum"))
        rows = 1 + (len(handles) > LEGEND_ENTRIES)
        columns = -(-len(handles) // rows)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        head(figure, _message(runs, schedulers), conditions_of(runs.drop(columns="output_lengths")))
    return figure


def _message(runs: pd.DataFrame, schedulers: list[str]) -> str:
    """Return the two schedulers with the largest shares without known lengths."""
    fair = runs[runs["output_lengths"] != KNOWN]
    means = fair.groupby(["scheduler", "overlap", "workload"])["share_of_bound"].mean()
    ranks = means.groupby("scheduler").mean().sort_values(ascending=False).index
    said = [f"{name} reaches {share_range(means[name])}" for name in ranks[:2]]
    return f"{' and '.join(said)} of the tightest bound with learned lengths" if said else ""


def _optimum_lines(axes: Axes, runs: pd.DataFrame, workloads: list[str]) -> None:
    """Draw the practical optimum over each workload, where it is visibly above the bound."""
    over = (runs["share_of_bound"] / runs["share_of_optimum"]).groupby(runs["workload"]).mean()
    for at, name in enumerate(workloads):
        if name in over and over[name] > 1.005:
            axes.hlines(over[name], at - 0.4, at + 0.4, color="black", ls=":", linewidth=1.0)
