"""The columns of the report's table: which to show, in which order, with which words."""

from dataclasses import dataclass

import pandas as pd

LEADING = (
    "workload",
    "scheduler",
    "throughput_tok_s",
    "share_of_optimum",
    "share_of_bound",
    "makespan_s",
)
"""Columns that are always shown, and come first in this order; varied inputs follow `scheduler`."""
INPUTS = (
    *("config", "model", "hardware", "engine", "overlap", "dp", "tp", "pp"),
    *("seed", "num_requests", "cost_model", "output_lengths"),
    *("dtype", "quantization", "kv_cache_dtype"),
)
"""Columns of runs.csv that hold an input; those of swept fields have a dot in their name."""
MISSING = "–"
"""The text of a missing value."""
LAST = ("bssim_version", "config_hash", "status", "error")
HEADINGS = {
    "throughput_tok_s": "throughput (tokens/s)",
    "optimum_tok_s": "practical optimum (tokens/s)",
    "share_of_optimum": "share of optimum",
    "share_of_bound": "share of bound",
    "makespan_s": "makespan (s)",
    "tail_share": "tail, share of makespan",
    "throughput_without_tail_tok_s": "throughput without tail (tokens/s)",
    "compute_s": "compute (s)",
    "memory_s": "memory (s)",
    "plan_wall_s": "planning, wall (s)",
    "sim_wall_s": "simulation, wall (s)",
    "num_requests": "requests",
    "density": "density",
    "sharing_max": "sharing, at most",
}


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    name: str
    """Its name in runs.csv."""
    numeric: bool
    is_input: bool

    @property
    def heading(self) -> str:
        """The words of its heading."""
        return HEADINGS.get(self.name, self.name.removeprefix("engine.").replace("_", " "))

    def text(self, value: object) -> str:
        """Return a value as the table shows it."""
        if value is None or value == "" or value != value:
            return MISSING
        if not self.numeric or not isinstance(value, int | float):
            return str(value)
        if self.name.startswith("shar") or self.name.endswith("_share"):
            return f"{value:.1%}"
        if "tok_s" in self.name:
            return f"{value:,.0f}"
        if self.name.endswith("_s"):
            return f"{value:,.1f}" if value >= 1 else f"{value:.3g}"
        if isinstance(value, int) or value == int(value):
            return f"{value:,.0f}"
        return f"{value:.4g}"


def shown_columns(runs: pd.DataFrame) -> tuple[list[Column], list[Column]]:
    """Return the columns of the table, and those that have the same value in every row.

    In a table of one row, every column except the leading ones is of the second kind.
    """
    names = [str(name) for name in runs.columns]
    inputs = [name for name in names if _is_input(name) and name not in LEADING]
    results = [name for name in names if name not in (*inputs, *LEADING, *LAST)]
    ordered = [*LEADING[:2], *inputs, *LEADING[2:], *results, *LAST]
    varied = [n for n in ordered if n in LEADING or runs[n].nunique(dropna=False) > 1]
    table = [_column(runs, name) for name in varied if name in names]
    fixed = [_column(runs, n) for n in ordered if n not in varied and n in names]
    return table, fixed


def _is_input(name: str) -> bool:
    return name in (*INPUTS, "workload", "scheduler") or "." in name or name == "disaggregation"


def _column(runs: pd.DataFrame, name: str) -> Column:
    return Column(name, pd.api.types.is_numeric_dtype(runs[name]), _is_input(name))
