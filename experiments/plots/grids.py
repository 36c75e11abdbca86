"""Speed-ups on the same grid from several sources, side by side, and their difference."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from bssim.experiments.plots.heatmap import tick_labels
from bssim.experiments.plots.style import DOUBLE_IN, SINGLE_IN, new_figure, styled

GRID_AXES = ("density (compute s / memory s)", "prefix sharing")
"""Labels of the vertical and horizontal axis of the paper's grids."""


def grids_figure(
    panels: Mapping[str, pd.DataFrame],
    ylabel: str,
    xlabel: str,
    difference: tuple[str, pd.DataFrame] | None = None,
) -> Figure:
    """Return one heat map per panel on a common colour scale.

    ``difference`` has its own scale, centred on zero. The rows and columns of a table are numbers;
    NaN stays empty.
    """
    tables = [table.to_numpy(dtype=float).ravel() for table in panels.values()]
    values = np.concatenate(tables)
    low, high = (np.nanmin(values), np.nanmax(values)) if np.isfinite(values).any() else (0, 1)
    count = len(panels) + (difference is not None)
    lines = max(len(table) for table in panels.values())
    with styled():
        figure = new_figure(SINGLE_IN if count == 1 else DOUBLE_IN, 0.9 + max(0.17 * lines, 1.2))
        axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
        for place, (title, table) in zip(axes, panels.items(), strict=False):
            image = _heatmap(place, title, table, "cividis", float(low), float(high), "{:.2f}")
        figure.colorbar(image, ax=list(axes[: len(panels)]), label="speed-up", pad=0.02)
        if difference is not None:
            title, table = difference
            found = np.abs(table.to_numpy(dtype=float))
            most = float(np.nanmax(found)) if np.isfinite(found).any() else 1.0
            image = _heatmap(axes[-1], title, table, "RdBu_r", -most, most, "{:+.2f}")
            figure.colorbar(image, ax=axes[-1], label="difference", pad=0.04)
        axes[0].set_ylabel(ylabel)
        for place in axes:
            place.set_xlabel(xlabel)
    return figure


def _heatmap(
    axes: Axes,
    title: str,
    table: pd.DataFrame,
    colours: str,
    low: float,
    high: float,
    text: str,
) -> AxesImage:
    grid = table.to_numpy(dtype=float)
    image = axes.imshow(grid, cmap=colours, vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(grid.shape[1]), tick_labels(table.columns.astype(float)))
    axes.set_yticks(range(grid.shape[0]), tick_labels(table.index.astype(float)))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            axes.text(
                *(j, i, text.format(value)),
                ha="center",
                va="center",
                fontsize=6,
                color="white" if dark else "black",
            )
    return image
