"""Speed-up over a baseline on a two-dimensional grid (paper, figures 11 and 13 to 15)."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bssim.experiments.plots.style import DOUBLE_IN, SINGLE_IN, new_figure, scheduler_order, styled


def heatmap_figure(
    runs: pd.DataFrame, rows: str, columns: str, baseline: str, title: str = ""
) -> Figure:
    """Return one panel per scheduler with its speed-up over the baseline at each grid point.

    ``runs`` are rows of runs.csv with status ok and two more columns, ``rows`` and ``columns``: the
    swept numbers, with NaN for null. Points without both results stay empty.
    """
    row_values, column_values = (
        np.sort(runs[name].astype(float).unique()) for name in (rows, columns)
    )
    # Group by position and not by value, because pandas drops groups of NaN; numpy sorts NaN last.
    at_row = np.searchsorted(row_values, runs[rows].astype(float))
    at_column = np.searchsorted(column_values, runs[columns].astype(float))
    throughput = runs["throughput_tok_s"].astype(float)
    means = throughput.groupby([at_row, at_column, runs["scheduler"].to_numpy()]).mean().unstack()
    others = [name for name in scheduler_order(means.columns) if name != baseline]
    lines, across = len(row_values), len(column_values)
    grids = {
        name: (means[name] / means[baseline])
        .unstack()
        .reindex(index=range(lines), columns=range(across))
        for name in others
    }
    found = np.concatenate([g.to_numpy().ravel() for g in grids.values()])
    low, high = (np.nanmin(found), np.nanmax(found)) if np.isfinite(found).any() else (0.0, 1.0)
    with styled():
        width = SINGLE_IN if len(others) == 1 else DOUBLE_IN
        figure = new_figure(width, 0.8 + max(0.17 * lines, 1.2))
        panels = figure.subplots(1, len(others), sharey=True, squeeze=False)[0]
        for axes, (name, grid) in zip(panels, grids.items(), strict=True):
            image = axes.imshow(grid, cmap="cividis", vmin=low, vmax=high, aspect="auto")
            axes.set_xticks(range(across), tick_labels(column_values))
            axes.set_yticks(range(lines), tick_labels(row_values))
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_xlabel(axis_label(columns))
            axes.set_title(f"{name} over {baseline}")
            for (i, j), value in np.ndenumerate(grid.to_numpy()):
                dark = value < (low + high) / 2
                axes.text(
                    *(j, i, f"{value:.2f}" if np.isfinite(value) else ""),
                    ha="center",
                    va="center",
                    fontsize=6,
                    color="white" if dark else "black",
                )
        panels[0].set_ylabel(axis_label(rows).replace(" (", "\n("))
        bar = figure.colorbar(image, ax=panels, label="speed-up", pad=0.02)
        bar.ax.ticklabel_format(useOffset=False)  # 1.0001, not 1e-4 plus an offset
        if title:
            figure.suptitle(title, x=0.02, ha="left", fontsize=8)
    return figure


def tick_labels(values: Iterable[float]) -> list[str]:
    """Return swept values with the same number of decimals; NaN is null."""
    values = list(values)
    decimals = max(len(f"{value:g}".partition(".")[2]) for value in values)
    return ["null" if value != value else f"{value:.{decimals}f}" for value in values]


def axis_label(name: str) -> str:
    """Return the axis label of a swept input."""
    words = {
        "workload.mix.density": "density (compute s / memory s)",
        "workload.mix.sharing": "prefix sharing (share of prompt tokens)",
        "workload.num_requests": "requests",
    }
    return words.get(name, name.removeprefix("engine."))
