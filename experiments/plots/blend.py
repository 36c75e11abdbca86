"""The ratio of compute to memory seconds of steps over time, one line per scheduler."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from bssim.experiments.plots.heading import head
from bssim.experiments.plots.style import (
    SINGLE_IN,
    new_figure,
    scheduler_colour,
    scheduler_order,
    styled,
)

SPAN = 30.0
"""The axis ends at this factor above and below the ratio of the pool. Beyond it, a step uses almost
only one resource."""


def blend_figure(
    timelines: Mapping[str, pd.DataFrame], target: float, message: str, conditions: str = ""
) -> Figure:
    """Return ratios on a log axis, clipped at `SPAN` times the ratio of the pool, ``target``.

    ``timelines`` are as in `steps_figure`; only the first replica is drawn.
    """
    with styled():
        figure = new_figure(SINGLE_IN, 2.1)
        axes = figure.add_subplot()
        for name in scheduler_order(timelines):
            timeline = timelines[name].query("replica == 0")
            ratio = (timeline["compute_s"] / timeline["memory_s"]).clip(
                target / SPAN, target * SPAN
            )
            axes.plot(
                timeline["start_s"] / 3600, ratio, color=scheduler_colour(name), lw=0.8, label=name
            )
        axes.axhline(target, color="black", linewidth=0.8)
        axes.set_yscale("log")
        axes.set_ylim(target / SPAN / 1.2, target * SPAN * 1.2)  # so that clipped lines show
        axes.set_xlim(0, None)
        axes.set_xlabel("simulated time (h)")
        axes.set_ylabel("compute s / memory s")
        figure.legend(loc="outside lower center", ncols=len(timelines))
        head(figure, message, conditions)
    return figure
