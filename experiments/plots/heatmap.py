"""Heat maps of speed-ups on two-dimensional grids (paper, figures 11 and 13 to 15)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from bssim.experiments.plots.heading import conditions_of, head, ratio_range
from bssim.experiments.plots.style import DOUBLE_IN, SINGLE_IN, new_figure, scheduler_order, styled

GRID_AXES = ("density (compute s / memory s)", "prefix sharing")
"""Labels of the vertical and horizontal axis of the paper's grids."""
OUTLIER = 3.0
"""Interquartile ranges beyond the quartiles."""


def speedup_figure(
    runs: pd.DataFrame, rows: str, columns: str, baseline: str, title: str = ""
) -> Figure:
    """Return one heat map per scheduler: its speed-up over the baseline at each grid point.

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
    panels = {}
    for name in scheduler_order(means.columns):
        if name != baseline:
            grid = (means[name] / means[baseline]).unstack()
            grid = grid.reindex(index=range(len(row_values)), columns=range(len(column_values)))
            panels[f"{name} over {baseline}"] = grid.set_axis(row_values).set_axis(
                column_values, axis=1
            )
    ylabel = axis_label(rows).replace(" (", "\n(")
    parts = (title, conditions_of(runs))
    conditions = ", ".join(part for part in parts if part)
    return heatmaps(panels, ylabel, axis_label(columns), conditions=conditions)


def heatmaps(
    panels: Mapping[str, pd.DataFrame],
    ylabel: str,
    xlabel: str,
    difference: tuple[str, pd.DataFrame] | None = None,
    *,
    message: str | None = None,
    conditions: str = "",
) -> Figure:
    """Return one heat map per panel on a common colour scale, side by side; equal ones once.

    ``difference`` has its own scale, centred on zero. The rows and columns of a table are numbers;
    a value of NaN stays empty. ``message`` and ``conditions`` are those of `head`; None: the range
    and the geometric mean of each panel.
    """
    panels = _merged(panels)
    if message is None:
        found = {name: table.to_numpy(dtype=float) for name, table in panels.items()}
        message = "; ".join(_range_in_words(name, grid) for name, grid in found.items())
    low, high, extend = _colour_range([table.to_numpy(float) for table in panels.values()])
    count = len(panels) + (difference is not None)
    lines = max(len(table) for table in panels.values())
    with styled():
        figure = new_figure(SINGLE_IN if count == 1 else DOUBLE_IN, 0.9 + max(0.17 * lines, 1.2))
        axes = figure.subplots(1, count, sharey=True, squeeze=False)[0]
        for place, (name, table) in zip(axes, panels.items(), strict=False):
            image = _draw(place, name, table, "cividis", low, high, "{:.2f}")
        own = list(axes[: len(panels)])
        bar = figure.colorbar(image, ax=own, label="speed-up", pad=0.02, extend=extend)
        bar.ax.ticklabel_format(useOffset=False)  # 1.0001, not 1e-4 plus an offset
        if difference is not None:
            name, table = difference
            found = np.abs(table.to_numpy(dtype=float))
            most = float(np.nanmax(found)) if np.isfinite(found).any() else 1.0
            image = _draw(axes[-1], name, table, "RdBu_r", -most, most, "{:+.2f}")
            figure.colorbar(image, ax=axes[-1], label="difference", pad=0.04)
        axes[0].set_ylabel(ylabel)
        for place in axes:
            place.set_xlabel(xlabel)
        head(figure, message, conditions)
    return figure


def _merged(panels: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the panels, equal ones as one with all their names."""
    names: list[list[str]] = []
    tables: list[pd.DataFrame] = []
    for name, table in panels.items():
        same = [i for i, other in enumerate(tables) if table.equals(other)]
        if same:
            names[same[0]].append(name)
        else:
            names.append([name])
            tables.append(table)
    return dict(zip(map(" = ".join, names), tables, strict=True))


def _range_in_words(name: str, grid: npt.NDArray[np.float64]) -> str:
    values = grid[np.isfinite(grid)]
    if not len(values):
        return f"{name}: no result"
    return f"{name}: {ratio_range(values)}, geometric mean {np.exp(np.log(values).mean()):.2f}x"


def _colour_range(
    grids: Sequence[npt.NDArray[np.float64]],
) -> tuple[float, float, Literal["neither", "both", "min", "max"]]:
    """Return the values at the ends of the colours, and at which of them values lie beyond.

    An outlier, more than `OUTLIER` interquartile ranges from the quartiles, gets the last colour.
    Otherwise the differences between all other points would not be visible.
    """
    values = np.concatenate([grid.ravel() for grid in grids])
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0, "neither"
    low, high = float(values.min()), float(values.max())
    first, third = np.percentile(values, [25, 75])
    reach = OUTLIER * (third - first)
    if len(values) < 8 or reach == 0 or (low >= first - reach and high <= third + reach):
        return low, high, "neither"
    beyond = low < first - reach, high > third + reach
    within = values[(values >= first - reach) & (values <= third + reach)]
    ends: dict[tuple[bool, bool], Literal["both", "min", "max"]] = {
        (True, True): "both",
        (True, False): "min",
        (False, True): "max",
    }
    return float(within.min()), float(within.max()), ends[beyond]


def _draw(
    axes: Axes, title: str, table: pd.DataFrame, colours: str, low: float, high: float, text: str
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
