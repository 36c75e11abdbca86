"""A workload in one picture: its length distributions, and what each request is bound by."""

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bssim.experiments.plots.style import DOUBLE_IN, new_figure, styled
from bssim.sim.workload.workload import Workload

MAX_POINTS = 4000
"""Requests drawn as points; of larger pools an even sample of each source."""
# Sources are not schedulers: the palette's colours in an order of their own.
SOURCE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def workload_figure(workload: Workload, density: npt.NDArray[np.float64]) -> Figure:
    """Return histograms of prompt and output lengths, and density against output length.

    ``density`` has shape (n,): compute seconds over memory seconds of each request alone.
    """
    with styled():
        figure = new_figure(DOUBLE_IN, 2.2)
        prompt_axes, output_axes, density_axes = figure.subplots(1, 3)
        for i, name in enumerate(workload.source_names):
            mine = workload.source == i
            colour = SOURCE_COLOURS[i % len(SOURCE_COLOURS)]
            for axes, tokens in (
                (prompt_axes, workload.prompt_tokens),
                (output_axes, workload.output_tokens),
            ):
                # Whole numbers of tokens: finer edges would leave gaps among the short lengths.
                edges = np.unique(np.geomspace(1, int(tokens.max()) + 1, 41).round())
                axes.hist(tokens[mine], edges, histtype="step", color=colour, lw=1.0, label=name)
            rows = np.flatnonzero(mine)
            rows = rows[:: max(1, len(rows) * len(workload.source_names) // MAX_POINTS)]
            density_axes.scatter(
                *(workload.output_tokens[rows], density[rows]),
                s=2,
                color=colour,
                linewidths=0,
                alpha=0.5,
                rasterized=True,
            )
        for axes, label in ((prompt_axes, "prompt tokens"), (output_axes, "output tokens")):
            axes.set(xscale="log", yscale="log", xlabel=label, ylabel="requests")
        density_axes.axhline(1.0, color="black", lw=0.6, ls=":")
        density_axes.set(
            xscale="log",
            yscale="log",
            xlabel="output tokens",
            ylabel="density\n(compute s / memory s)",
        )
        handles, labels = prompt_axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6))
    return figure
