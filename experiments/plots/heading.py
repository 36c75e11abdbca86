"""What a figure says above its axes: its message, and the conditions of its numbers."""

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bssim.wording import counted

FONT_SIZE = 7
CHARACTER_IN = 0.056
"""Inches per character of a heading."""
LINE_IN = 0.12


def head(figure: Figure, message: str, conditions: str = "") -> None:
    """Write the message and, below it, the conditions over a figure, which grows by these lines.

    A legend must be below the axes.
    """
    width = int(figure.get_figwidth() / CHARACTER_IN)
    ended = f"{message}." if message and conditions else message
    lines = [*wrap(ended, width), *wrap(conditions, width)]
    if lines:
        figure.set_figheight(figure.get_figheight() + LINE_IN * len(lines))
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=FONT_SIZE)


def message_of(figure: Figure) -> str:
    """Return what `head` wrote over a figure, as one line."""
    return " ".join(figure.get_suptitle().split())


def conditions_of(runs: pd.DataFrame) -> str:
    """Return model, GPUs, engine, cost model, lengths, size and seeds of rows of runs.csv.

    Up to three values of a column are named. A column that is missing is left out.
    """
    places = [_named(runs, "model"), _named(runs, "hardware")]
    replicas, tp = _values(runs, "dp"), _values(runs, "tp")
    gpus = int(replicas[0]) * int(tp[0]) if len(replicas) == len(tp) == 1 else 1
    if places[1] and gpus > 1:
        places[1] = f"{gpus} x {places[1]}"
    sizes = [int(n) for n in _values(runs, "num_requests")]
    parts = [
        " on ".join(filter(None, places)),
        _named(runs, "engine"),
        _named(runs, "overlap", " overlap"),
        _named(runs, "cost_model", " cost model"),
        _named(runs, "output_lengths", " lengths"),
        _sizes(sizes),
    ]
    seeds = len(_values(runs, "seed"))
    return ", ".join([*filter(None, parts), *([f"mean of {seeds} seeds"] if seeds > 1 else [])])


def _values(runs: pd.DataFrame, column: str) -> list[Any]:
    return list(runs[column].dropna().unique()) if column in runs else []


def _named(runs: pd.DataFrame, column: str, unit: str = "") -> str:
    values = [str(value) for value in _values(runs, column) if value != ""]
    if len(values) > 3:
        return f"{len(values)} values of {column}"
    return f"{'/'.join(values)}{unit}" if values else ""


def _sizes(sizes: Sequence[int]) -> str:
    if not sizes:
        return ""
    low, high = min(sizes), max(sizes)
    return counted(high, "request") if low == high else f"{low:,} to {high:,} requests"


def fastest_message(rates: pd.DataFrame, baseline: str, places: str = "workloads") -> str:
    """Return which column of ``rates`` (a row per place) is highest, and how far over another."""
    known = rates.dropna(how="all").astype("float64").rename(columns=str)
    if known.empty or known.shape[1] < 2:
        return ""
    firsts = [str(name) for name in known.idxmax(axis=1)]
    best = max(map(str, known), key=firsts.count)
    where = "" if len(known) == 1 else f" in {firsts.count(best)} of {len(known)} {places}"
    message = f"{best} is fastest{where}"
    if baseline in known and baseline != best:
        message += f", {ratio_range(known[best] / known[baseline])} as fast as {baseline}"
    return message


def ratio_range(ratios: "pd.Series[float] | np.ndarray[tuple[int], np.dtype[np.float64]]") -> str:
    """Return the range of some ratios, such as ``1.08x to 1.31x``."""
    low, high = (f"{value:.2f}x" for value in (np.nanmin(ratios), np.nanmax(ratios)))
    return low if low == high else f"{low} to {high}"


def share_range(values: "pd.Series[float]") -> str:
    """Return the range of some shares, such as ``93% to 99%``."""
    low, high = f"{values.min():.0%}", f"{values.max():.0%}"
    return low if low == high else f"{low} to {high}"
