"""Finished sweeps as tables, and tables as Markdown.

A failed run is NaN, and so is every value derived from it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from bssim.experiments.markdown import markdown_table
from bssim.experiments.result_pages.study import Value
from bssim.experiments.sweeps import Results, varied_numbers


def by_workload(
    results: Results, column: str = "throughput_tok_s", across: str = "scheduler", **where: object
) -> pd.DataFrame:
    """Return ``column`` of runs.csv: one row per workload, one column per value of ``across``.

    ``where`` selects rows by other columns and must leave one run per place. Both axes keep the
    order of the sweep.
    """
    runs = results.read_runs()
    for name, value in where.items():
        runs = runs[runs[name] == value]
    workloads = list(dict.fromkeys(runs["workload"]))
    table = runs.set_index(["workload", across])[column].astype("float64").unstack(across)
    return table.reindex(index=workloads, columns=list(dict.fromkeys(runs[across])))


def by_grid(
    results: Results, scheduler: str, baseline: str, column: str = "throughput_tok_s"
) -> pd.DataFrame:
    """Return one scheduler over another on a grid: one row per density, one column per sharing."""
    runs = results.read_runs()
    points = varied_numbers(results.inputs(runs)).rename(
        columns={"workload.mix.density": "density_", "workload.mix.sharing": "sharing_"}
    )
    table = runs.join(points, on="config_hash").set_index(["density_", "sharing_", "scheduler"])
    values = table[column].astype("float64").unstack("scheduler")
    return (values[scheduler] / values[baseline]).unstack("sharing_")


def frame_table(
    table: pd.DataFrame,
    render: Callable[[Any], str],
    corner: str | None = None,
    *,
    means: bool = False,
) -> str:
    """Return a table as Markdown, its index as left columns; a missing value is a dash.

    ``corner`` heads the left column, None: the index's own names do. ``render`` makes text of every
    value; ``means`` adds a line of column means, missing where a value is.
    """
    index = table.index.to_frame(index=False)
    heads = [str(name or "") for name in index.columns] if corner is None else [corner]
    body = list(zip(index.to_numpy().tolist(), table.to_numpy(dtype=object), strict=True))
    if means:
        left = ["*mean*", *[""] * (len(heads) - 1)]
        body.append((left, table.mean(skipna=False).to_numpy(dtype=object)))
    rows = [
        [*left, *("-" if pd.isna(value) else render(value) for value in values)]
        for left, values in body
    ]
    return "\n".join(markdown_table([*heads, *table.columns], rows, "l" * len(heads)))


def mean_and_range(values: "pd.Series[float]") -> str:
    """Return ``0.953 (0.951-0.956)``; of a single value, the value alone."""
    low, mean, high = values.min(), values.mean(), values.max()
    text = f"{mean:.3f}"
    return text if len(values) == 1 else f"{text} ({low:.3f}-{high:.3f})"


def times(value: float) -> str:
    """Return a speed-up as text."""
    return f"{value:.3f}x"


def percent(value: float) -> str:
    """Return a share as text."""
    return f"{value:.1%}"


def tokens(value: float) -> str:
    """Return tokens/s as text."""
    return f"{value:,.0f}"


def span(values: Iterable[float], text: Callable[[float], str] = times) -> Value:
    """Return ``low to high`` in words, once if they read the same; None for a missing value."""
    found = list(values)
    if not found or any(v != v for v in found):
        return None
    low, high = text(min(found)), text(max(found))
    return low if low == high else f"{low} to {high}"


def within(value: float, low: float = float("-inf"), high: float = float("inf")) -> bool | None:
    """Return whether a number lies in a range; None for NaN."""
    return None if value != value else bool(low <= value <= high)
