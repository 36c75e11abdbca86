"""Predicted against measured values on two logarithmic axes, one panel per group."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bssim.experiments.plots.heading import head
from bssim.experiments.plots.style import DOUBLE_IN, new_figure, styled

COLOURS = {
    "a100-80gb": "#0072B2",
    "h100-sxm": "#E69F00",
    "h200": "#009E73",
    "l40s": "#CC79A7",
    "gh200": "#D55E00",
    "b200": "#000000",
}
"""The colour of each GPU, from the palette of Okabe and Ito."""
MARKERS = {1: "o", 2: "s", 4: "^", 8: "D"}
"""Number of GPUs -> marker."""
BAND = 0.2
"""Errors up to this are shaded."""


def scatter_figure(panels: Mapping[str, pd.DataFrame], label: str, conditions: str = "") -> Figure:
    """Return predicted over measured values, with one panel per table.

    Tables have the columns gpu, tp, measured and predicted. ``label`` gives the unit.
    """
    every = pd.concat(panels.values())
    low = 0.7 * float(every[["measured", "predicted"]].min().min())
    high = 1.4 * float(every[["measured", "predicted"]].max().max())
    line = np.array([low, high])
    with styled():
        figure = new_figure(DOUBLE_IN, 2.9)
        axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for place, (title, table) in zip(axes, panels.items(), strict=True):
            place.fill_between(
                line, line / (1 + BAND), line * (1 + BAND), color="#EEEEEE", linewidth=0
            )
            place.plot(line, line, color="#888888", linewidth=0.6)
            for (gpu, tp), rows in table.groupby(["gpu", "tp"], sort=True):
                place.scatter(
                    rows["measured"],
                    rows["predicted"],
                    s=9,
                    marker=MARKERS[int(str(tp))],
                    facecolors="none",
                    edgecolors=COLOURS[str(gpu)],
                    linewidths=0.6,
                )
            place.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
            place.set_aspect("equal")
            place.set_title(title)
            place.set_xlabel(f"measured ({label})")
        axes[0].set_ylabel(f"predicted ({label})")
        gpus = [gpu for gpu in COLOURS if gpu in set(every["gpu"])]
        handles = [
            Line2D([], [], linestyle="none", marker="o", color=COLOURS[gpu], label=gpu)
            for gpu in gpus
        ] + [
            Line2D([], [], linestyle="none", marker=marker, mfc="none", color="k", label=f"TP {tp}")
            for tp, marker in MARKERS.items()
            if tp in set(every["tp"])
        ]
        for handle in handles:
            handle.set_markersize(4)
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
        error = (every["predicted"] / every["measured"] - 1).abs()
        head(
            figure,
            f"{(error <= BAND).mean():.0%} of {len(every):,} predictions are within {BAND:.0%} of "
            f"the measured rate; the median error is {error.median():.1%}",
            conditions,
        )
    return figure
