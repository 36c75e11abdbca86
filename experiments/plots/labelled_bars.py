"""Grouped bars from tables whose columns are any systems, not only schedulers."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bssim.experiments.plots.style import DOUBLE_IN, new_figure, styled


def labelled_bars(
    panels: Mapping[str, pd.DataFrame],
    colours: Mapping[str, str],
    ylabel: str,
    limits: Mapping[str, "pd.Series[float]"] | None = None,
    limit_label: str = "practical optimum",
    *,
    one_scale: bool = True,
) -> Figure:
    """Return one panel per table, with one group of bars per row and one bar per column.

    ``colours`` maps columns to colours, in the order of the bars. ``limits`` gives the black lines
    over the groups of each panel. A missing number leaves its place empty. With ``one_scale``, all
    panels share their y axis.
    """
    with styled():
        figure = new_figure(DOUBLE_IN, 2.6)
        all_axes = figure.subplots(1, len(panels), sharey=one_scale, squeeze=False)[0]
        for axes, (title, table) in zip(all_axes, panels.items(), strict=True):
            bars = [name for name in colours if name in table]
            width = 0.84 / len(bars)
            at = np.arange(len(table))
            for i, name in enumerate(bars):
                x = at + (i + 0.5) * width - 0.42
                axes.bar(x, table[name], 0.9 * width, color=colours[name], label=name)
            if limits is not None:
                tops = limits[title].reindex(table.index)
                lines = axes.hlines(tops, at - 0.45, at + 0.45, color="black", linewidth=1.2)
                lines.set_label(limit_label)
            axes.set_xticks(at, [str(name) for name in table.index])
            axes.tick_params(axis="x", length=0)
            axes.set_title(title)
            axes.set_ylim(0, None)
        all_axes[0].set_ylabel(ylabel)
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            loc="outside upper center",
            ncols=min(len(labels), 5),
            handlelength=1.2,
            columnspacing=1.2,
        )
    return figure
