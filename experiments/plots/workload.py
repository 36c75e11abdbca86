"""A workload in one picture: its length distributions and the density of its requests."""

import numpy as np
import numpy.typing as npt
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

from bssim.experiments.plots.heading import head
from bssim.experiments.plots.style import DOUBLE_IN, legend_columns, new_figure, styled
from bssim.sim.workload import Workload
from bssim.wording import counted

MAX_POINTS = 4000
"""The most requests drawn as points; larger pools show an even sample of each source."""
# Sources have the same palette as schedulers, but in another order.
SOURCE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""If there are more sources than colours, the remaining sources share the last colour."""


def workload_figure(workload: Workload, density: npt.NDArray[np.float64]) -> Figure:
    """Return histograms of prompt and output lengths, and density over output length.

    ``density`` has shape (n,): compute seconds over memory seconds of each single request.
    """
    with styled():
        figure = new_figure(DOUBLE_IN, 2.2)
        prompt_axes, output_axes, density_axes = figure.subplots(1, 3)
        sources = _sources(workload)
        for (name, mine), colour in zip(sources, SOURCE_COLOURS, strict=False):
            for axes, tokens in (
                (prompt_axes, workload.prompt_tokens),
                (output_axes, workload.output_tokens),
            ):
                # Lengths are whole numbers, so finer edges would leave gaps at short lengths.
                edges = np.unique(np.geomspace(tokens.min(), tokens.max() + 1, 41).round())
                axes.hist(tokens[mine], edges, histtype="step", color=colour, lw=1.0, label=name)
            rows = np.flatnonzero(mine)
            rows = rows[:: max(1, len(rows) * len(sources) // MAX_POINTS)]
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
            axes.set_ylim(bottom=0.5)  # a single request has a bar too
        density_axes.axhline(1.0, color="black", lw=0.6, ls=":")
        density_axes.set(
            xscale="log",
            yscale="log",
            xlabel="output tokens",
            ylabel="density\n(compute s / memory s)",
        )
        for axes in (prompt_axes, output_axes, density_axes):
            _thin_ticks(axes.xaxis)
            _thin_ticks(axes.yaxis)
        handles, labels = prompt_axes.get_legend_handles_labels()
        columns = legend_columns(labels, DOUBLE_IN)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        prompt, output = workload.prompt_tokens.sum(), workload.output_tokens.sum()
        head(
            figure,
            f"{workload.name}: {counted(len(workload), 'request')}, {prompt:,} prompt tokens "
            f"(at most {workload.sharing_max:.1%} shared), {output:,} output tokens",
        )
    return figure


def _sources(workload: Workload) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Return the requests of each source; with many sources, combine the smallest ones."""
    names, counts = (
        workload.source_names,
        np.bincount(workload.source, minlength=len(workload.source_names)),
    )
    if len(names) <= len(SOURCE_COLOURS):
        return [(name, workload.source == i) for i, name in enumerate(names)]
    largest = np.argsort(-counts, kind="stable")[: len(SOURCE_COLOURS) - 1]
    shown = [(names[i], workload.source == i) for i in largest]
    others = f"{len(names) - len(shown)} others"
    return [*shown, (others, ~np.isin(workload.source, largest))]


def _thin_ticks(axis: Axis) -> None:
    """Label a few ticks of a log axis within one decade, where matplotlib labels would overlap."""
    low, high = axis.get_view_interval()
    if high / low < 10:
        axis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_locator(NullLocator())
