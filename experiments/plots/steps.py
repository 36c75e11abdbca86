"""Compute and memory seconds a step over time: how well a scheduler blends (paper, figure 3)."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from bssim.experiments.plots.style import (
    COMPUTE_COLOUR,
    MEMORY_COLOUR,
    SINGLE_IN,
    new_figure,
    scheduler_order,
    styled,
)


def steps_figure(timelines: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Return one panel a scheduler, on common axes.

    ``timelines`` maps a scheduler to its downsampled timeline (`experiments/timeline.py`); of
    several replicas the first is drawn.
    """
    order = scheduler_order(timelines)
    first = {name: timelines[name].query("replica == 0") for name in order}
    end_h = max(float(t["start_s"].iloc[-1]) for t in first.values()) / 3600
    unit, divisor = ("h", 3600) if end_h >= 0.5 else ("min", 60) if end_h > 1 / 30 else ("s", 1)
    with styled():
        figure = new_figure(SINGLE_IN, 0.55 + 0.8 * len(order))
        panels = figure.subplots(len(order), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for name, axes in zip(order, panels, strict=True):
            timeline = first[name]
            at = timeline["start_s"] / divisor
            axes.plot(
                at, timeline["compute_s"] * 1e3, color=COMPUTE_COLOUR, lw=0.8, label="compute"
            )
            axes.plot(at, timeline["memory_s"] * 1e3, color=MEMORY_COLOUR, lw=0.8, label="memory")
            axes.set_title(name, loc="left", pad=2)
            axes.set_ylim(0, None)
            axes.set_xlim(0, None)
        panels[-1].set_xlabel(f"simulated time ({unit})")
        figure.supylabel("ms per step", fontsize=8)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
        figure.suptitle(title, x=0.02, ha="left", fontsize=8)
    return figure
