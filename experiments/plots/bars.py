"""Grouped bars: one group per workload (or any row of a table) and one bar per system."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from bssim.experiments.plots.heading import (
    conditions_of,
    fastest_message,
    head,
    ratio_range,
    share_range,
)
from bssim.experiments.plots.style import (
    DOUBLE_IN,
    SINGLE_IN,
    legend_columns,
    new_figure,
    scheduler_colour,
    scheduler_hatches,
    scheduler_order,
    styled,
)
from bssim.experiments.sweeps import BASELINES

CHARACTER_IN = 0.075
"""Inches per character of a tick label, including a part of the gap to the next label."""
LEGEND_ROW_IN = 0.14
"""Height of a legend row in inches; every figure has room for two rows."""
LONGEST_LABEL = 32
"""The most characters of a workload name under its bars."""
MAX_WORKLOADS = 12
"""The most groups of bars that are readable."""
FAR = 3.0
"""A limit this many times as high as every bound is left out: bars under it would be too short."""


def throughput_figure(runs: pd.DataFrame) -> Figure:
    """Return throughput by workload and scheduler under two limits.

    A black line is the practical optimum, a dotted one the tightest bound where it is lower.
    ``runs`` are rows of runs.csv with status ok and one setting. Several seeds are shown as their
    mean and range.
    """
    label = "throughput (1000 tokens/s)"
    bound = runs["throughput_tok_s"] / runs["share_of_bound"]
    lower = bound.where(bound < 0.995 * runs["optimum_tok_s"])
    most = 1e-3 * lower.groupby(runs["workload"], sort=False).max().astype("float64")
    return _by_scheduler(
        runs,
        "throughput_tok_s",
        "optimum_tok_s",
        1e-3,
        label,
        "practical optimum",
        most,
        message=_fastest,
    )


def _fastest(rates: pd.DataFrame, limits: "pd.Series[float]") -> str:
    """Return the message of bars of throughput."""
    ran = [name for name in BASELINES if name in rates]
    return fastest_message(rates, ran[0] if ran else "")


def _most_shared(sharing: pd.DataFrame, limits: "pd.Series[float]") -> str:
    """Return the message of bars of sharing."""
    reached = sharing.div(limits, axis=0)[limits > 0].dropna(how="all")
    if reached.empty:
        return ""
    means = reached.mean()
    best, worst = str(means.idxmax()), str(means.idxmin())
    most, least = share_range(reached[best]), share_range(reached[worst])
    if len(means) > 1 and most == least:
        return f"every order finds {most} of the largest possible sharing"
    message = f"{best} finds {most} of the largest possible sharing"
    return message if best == worst else f"{message}, {worst} {least}"


def sharing_figure(runs: pd.DataFrame) -> Figure:
    """Return sharing by workload and scheduler, with the largest possible as a black line."""
    label = "prompt tokens cached (%)"
    return _by_scheduler(
        runs, "sharing", "sharing_max", 100.0, label, "largest possible", message=_most_shared
    )


def _by_scheduler(
    runs: pd.DataFrame,
    column: str,
    limit: str,
    scale: float,
    ylabel: str,
    limit_label: str,
    bounds: "pd.Series[float] | None" = None,
    *,
    message: Callable[[pd.DataFrame, "pd.Series[float]"], str],
) -> Figure:
    workloads = list(dict.fromkeys(runs["workload"]))
    schedulers = scheduler_order(runs["scheduler"])
    found = runs.groupby(["workload", "scheduler"])[column].agg(["mean", "min", "max"])
    mean, low, high = (
        found[name].unstack().reindex(index=workloads, columns=schedulers).astype(float) * scale
        for name in ("mean", "min", "max")
    )
    limits = runs.groupby("workload")[limit].max().reindex(workloads).astype(float) * scale
    said = message(mean, limits)
    is_far = bounds is not None and bool((limits > FAR * bounds.reindex(workloads).max()).all())
    if is_far:
        times = ratio_range(limits / mean.max(axis=1))
        far = f"the {limit_label}, {times} as high, is off scale"
        said = f"{said}; {far}" if said else far
    return grouped_bars(
        {"": mean},
        {name: scheduler_colour(name) for name in schedulers},
        ylabel,
        None if is_far else {"": limits},
        limit_label,
        ranges={"": (low, high)},
        bounds=None if bounds is None or bounds.isna().all() else {"": bounds},
        hatches=scheduler_hatches(schedulers),
        size=(SINGLE_IN if len(workloads) <= 2 else DOUBLE_IN, 2.3),
        message=said,
        conditions=conditions_of(runs),
    )


def grouped_bars(
    panels: Mapping[str, pd.DataFrame],
    colours: Mapping[str, str],
    ylabel: str,
    limits: Mapping[str, "pd.Series[float]"] | None = None,
    limit_label: str = "practical optimum",
    *,
    one_scale: bool = True,
    ranges: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]] | None = None,
    bounds: Mapping[str, "pd.Series[float]"] | None = None,
    hatches: Mapping[str, str] | None = None,
    size: tuple[float, float] = (DOUBLE_IN, 2.6),
    message: str = "",
    conditions: str = "",
) -> Figure:
    """Return one panel per table, with one group of bars per row and one bar per column.

    The value of a bar is at its foot. ``message`` and ``conditions`` are those of `head`.

    ``colours`` maps columns to colours, in the order of the bars, and ``hatches`` to patterns.
    ``limits`` gives the black lines over the groups of each panel, ``bounds`` dotted ones, and
    ``ranges`` the lowest and highest values that a bar is the mean of. A missing number leaves its
    place empty. With ``one_scale``, all panels share their y axis. ``size`` is the least
    size in inches.
    """
    with styled():
        figure = new_figure(*size)
        all_axes = figure.subplots(1, len(panels), sharey=one_scale, squeeze=False)[0]
        handles: dict[str, Any] = {}
        for axes, (title, table) in zip(all_axes, panels.items(), strict=True):
            at = np.arange(len(table))
            for name, x, drawn in draw_groups(axes, table, colours, hatches):
                handles.setdefault(name, drawn)
                if ranges is not None:
                    _draw_range(axes, x, table[name], *(side[name] for side in ranges[title]))
            if limits is not None:
                tops = limits[title].reindex(table.index)
                lines = axes.hlines(tops, at - 0.45, at + 0.45, color="black", linewidth=1.2)
                handles["limit"] = lines
            if bounds is not None:
                tops = bounds[title].reindex(table.index)
                lines = axes.hlines(tops, at - 0.45, at + 0.45, color="black", ls=":", lw=1.2)
                handles["bound"] = lines
            _label_groups(figure, axes, [str(name) for name in table.index])
            axes.set_title(title)
        for axes in all_axes:  # after all bars, because it ends autoscaling of a shared axis
            axes.set_ylim(0, None)
        for axes, table in zip(all_axes, panels.values(), strict=True):
            most = sum(name in table for name in colours) * (len(table) + 0.5)
            _write_values(
                figure, axes, min(6.0, 72 * 0.67 * figure.get_figwidth() / len(panels) / most)
            )
        all_axes[0].set_ylabel(ylabel)
        limit, bound = handles.pop("limit", None), handles.pop("bound", None)
        names = [name for name in colours if name in handles]
        shown = [handles[name] for name in names]
        if limit is not None:
            names, shown = [*names, limit_label], [*shown, limit]
        if bound is not None:
            names, shown = [*names, "tightest bound"], [*shown, bound]
        _legend(figure, shown, names)
        head(figure, message, conditions)
    return figure


def draw_groups(
    axes: Axes,
    table: pd.DataFrame,
    colours: Mapping[str, str],
    hatches: Mapping[str, str] | None = None,
) -> Iterator[tuple[str, npt.NDArray[np.floating[Any]], BarContainer]]:
    """Draw one group of bars per row of ``table``, one bar per column that has a colour.

    Yields each column with the places of its bars and the bars. Group k is centred on k.
    """
    bars = [name for name in colours if name in table]
    width = 0.84 / len(bars)
    for i, name in enumerate(bars):
        x = np.arange(len(table)) + (i + 0.5) * width - 0.42
        look = _look(colours[name], (hatches or {}).get(name, ""))
        yield name, x, axes.bar(x, table[name], 0.92 * width, **look)


def _write_values(figure: Figure, axes: Axes, size: float = 6.0) -> None:
    """Write the value of each bar upright at its foot, where no line crosses it; over short bars.

    Call it when the vertical axis has its limits. ``size``: of the text, in points.
    """
    points = 72 * 0.55 * figure.get_figheight() / axes.get_ylim()[1]
    lines = [
        segment.tolist()
        for drawn in axes.collections
        if isinstance(drawn, LineCollection)
        for segment in drawn.get_segments()
        if len(segment) == 2  # none for a missing number
    ]
    for bars in axes.containers:
        for bar in bars if isinstance(bars, BarContainer) else ():
            value = bar.get_height()
            if not np.isfinite(value):
                continue
            text = f"{value:.1f}" if value >= 10 else f"{value:.2f}"
            height = 0.65 * size * len(text) + 2
            fits, x = value * points > height, bar.get_x() + bar.get_width() / 2
            foot = 0.0 if fits else value
            for (left, y), (right, _) in sorted(lines, key=lambda line: line[0][1]):
                if not fits and left <= x <= right and foot <= y <= foot + height / points:
                    foot = y  # no line crosses the value
            colour = bar.get_facecolor()
            behind = {"ec": "none", "pad": 0.4, "fc": colour if fits else "white"}
            red, green, blue, _ = colour
            light = 0.3 * red + 0.6 * green + 0.1 * blue >= 0.5
            axes.annotate(
                text,
                (x, foot),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                rotation=90,
                fontsize=size,
                color="black" if light or not fits else "white",
                bbox=behind if bar.get_hatch() or not fits else None,
            )


def _look(colour: str, hatch: str) -> dict[str, Any]:
    """Return the style of bars; hatches have the colour of the edge."""
    if hatch:
        return {"facecolor": colour, "edgecolor": "#555555", "linewidth": 0, "hatch": hatch}
    return {"color": colour}


def _draw_range(axes: Axes, x: Any, mean: Any, low: Any, high: Any) -> None:
    """Draw the range of each bar, unless every bar is of one value."""
    spread = np.abs(np.stack([low - mean, high - mean]).astype(float))
    if np.isfinite(spread).any() and np.nanmax(spread) > 0:
        axes.errorbar(x, mean, spread, fmt="none", ecolor="black", lw=0.6)


def _label_groups(figure: Figure, axes: Axes, names: list[str]) -> None:
    """Write the names under the groups; long ones are cut, and turned if they do not fit."""
    labels = [_cut(name) for name in names]
    at, longest = np.arange(len(labels)), max(map(len, labels))
    room = figure.get_figwidth() / len([a for a in figure.axes if a.get_subplotspec()])
    axes.set_xticks(at, labels)
    if len(labels) * CHARACTER_IN * longest > room:
        axes.set_xticks(at, labels, rotation=35, ha="right", rotation_mode="anchor")
        figure.set_figheight(figure.get_figheight() + 0.03 * longest)
    axes.tick_params(axis="x", length=0)


def _cut(name: str) -> str:
    """Shorten a long name by its middle, to leave room for the bars."""
    half = LONGEST_LABEL // 2
    return name if len(name) <= LONGEST_LABEL else f"{name[:half]}…{name[-half:]}"


def _legend(figure: Figure, handles: list[Any], labels: list[str]) -> None:
    columns = legend_columns(labels, figure.get_figwidth())
    rows = math.ceil(len(labels) / columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW_IN * max(0, rows - 2))
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        handlelength=1.2,
        columnspacing=1.2,
    )
