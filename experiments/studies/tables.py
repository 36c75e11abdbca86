"""Finished sweeps as tables: a run that failed is NaN in them, and so is whatever comes of it."""

from collections.abc import Callable, Iterable

import pandas as pd

from bssim.experiments.store import Results
from bssim.experiments.studies.study import Value


def by_workload(
    results: Results, column: str = "throughput_tok_s", across: str = "scheduler", **where: object
) -> pd.DataFrame:
    """Return ``column`` of runs.csv: a row a workload, a column a value of ``across``.

    ``where`` holds rows to values of other columns, which must leave one run a place. Both axes
    keep the order of the sweep.
    """
    runs = results.read_runs()
    for name, value in where.items():
        runs = runs[runs[name] == value]
    workloads = list(dict.fromkeys(runs["workload"]))
    table = runs.set_index(["workload", across])[column].astype("float64").unstack(across)
    return table.reindex(index=workloads, columns=list(dict.fromkeys(runs[across])))


def markdown(
    table: pd.DataFrame, text: Callable[[float], str], corner: str = "", means: bool = False
) -> str:
    """Return a table of numbers as Markdown; ``means`` adds a line of column means."""
    lines = [
        f"| {corner} | " + " | ".join(map(str, table.columns)) + " |",
        "|---|" + "---:|" * len(table.columns),
    ]
    body = [(str(name), row) for name, row in table.iterrows()]
    if means:
        body.append(("*mean*", table.mean(skipna=False)))
    for name, row in body:
        lines.append(f"| {name} | " + " | ".join("-" if v != v else text(v) for v in row) + " |")
    return "\n".join(lines)


def times(value: float) -> str:
    """Return a speed-up for people."""
    return f"{value:.3f}x"


def percent(value: float) -> str:
    """Return a share for people."""
    return f"{value:.1%}"


def tokens(value: float) -> str:
    """Return tokens/s for people."""
    return f"{value:,.0f}"


def span(values: Iterable[float], text: Callable[[float], str] = times) -> Value:
    """Return ``low to high`` in words, or None where a value is missing."""
    found = list(values)
    if not found or any(v != v for v in found):
        return None
    return f"{text(min(found))} to {text(max(found))}"


def within(value: float, low: float = float("-inf"), high: float = float("inf")) -> bool | None:
    """Return whether a number lies in a range; None for NaN, of which nothing can be said."""
    return None if value != value else bool(low <= value <= high)
