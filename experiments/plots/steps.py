"""Compute and memory seconds per step over time, as in figure 3 of the paper."""

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
from bssim.experiments.sweeps import ONE_REPLICA, shown_replicas


def steps_figure(
    timelines: Mapping[str, pd.DataFrame], title: str, kinds: Mapping[str, range] = ONE_REPLICA
) -> Figure:
    """Return one panel per scheduler and kind of replica; panels of a kind have common axes.

    ``timelines`` maps a scheduler to its downsampled timeline. ``kinds`` maps a kind of replica to
    its numbers in the timeline. The first replica of a kind that had work is drawn, and labelled
    unless the kind is "".
    """
    shown = [
        panel
        for name in scheduler_order(timelines)
        for panel in shown_replicas(name, timelines[name], kinds)
    ]
    end_h = max(float(t["start_s"].iloc[-1]) for _, _, t in shown) / 3600
    unit, divisor = ("h", 3600) if end_h >= 0.5 else ("min", 60) if end_h > 1 / 30 else ("s", 1)
    with styled():
        figure = new_figure(SINGLE_IN, 0.55 + 0.8 * len(shown))
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for (_, label, timeline), axes in zip(shown, panels, strict=True):
            at = timeline["start_s"] / divisor
            axes.plot(
                at, timeline["compute_s"] * 1e3, color=COMPUTE_COLOUR, lw=0.8, label="compute"
            )
            axes.plot(at, timeline["memory_s"] * 1e3, color=MEMORY_COLOUR, lw=0.8, label="memory")
            axes.set_title(label, loc="left", pad=2)
        for kind in kinds:  # decode steps are much shorter than prefill steps
            mine = [axes for (k, _, _), axes in zip(shown, panels, strict=True) if k == kind]
            top = max((axes.get_ylim()[1] for axes in mine), default=1.0)
            for axes in mine:
                axes.set_ylim(0, top)
        panels[0].set_xlim(0, None)  # after all lines, because it ends autoscaling
        panels[-1].set_xlabel(f"simulated time ({unit})")
        figure.supylabel("ms per step", fontsize=8)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=2)
        figure.suptitle(title, x=0.02, ha="left", fontsize=8)
    return figure
