"""Every published row beside its prediction, as a table, and the errors of groups of rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache

import numpy as np
import pandas as pd

from bssim.errors import InputError
from bssim.experiments.result_pages.published.cells import cell_of
from bssim.experiments.result_pages.published.measurements import (
    Measurement,
    measurements,
    releases,
)
from bssim.experiments.sweeps import Cell

HEAD = {
    "n": "rows",
    "median": "median error",
    "p90": "90 % within",
    "bias": "median, signed",
}
"""Columns of `errors`, as a page heads them."""

CHECK_GPUS = ("gh200",)
"""GPUs that were added after the constants were fitted, so all of their rows are predictions."""


@cache
def priced(
    num_requests: int | None = None,
) -> tuple[list[tuple[Measurement, Cell]], dict[str, int]]:
    """Return the rows that bssim can simulate with their cells, and why it leaves others out.

    The second part counts rows by reason. ``num_requests`` caps the requests of a row: a trial.
    """
    cells: list[tuple[Measurement, Cell]] = []
    left_out: dict[str, int] = {}
    for row in measurements():
        try:
            cells.append((row, cell_of(row, releases()[row.release], num_requests)))
        except InputError as error:
            reason = f"{error.where}: {error.problem.partition(' (did')[0]}"
            left_out[reason] = left_out.get(reason, 0) + 1
    return cells, left_out


def predictions(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one line per row with a result, in the order of the measurements.

    ``runs`` is the table of the distinct cells of `priced`, in its order. Columns are those of
    `Measurement`, and ``load``, ``measured_s``, ``predicted_s``, ``predicted`` (output tokens/s),
    ``error`` (predicted over measured throughput, less one), ``steps``, ``host_steps`` (steps
    summed over the requests in them), ``fitted`` (the constants were fitted to this row), ``moe``
    and ``year``.
    """
    lines = []
    hashes = dict.fromkeys(cell.config_hash for _, cell in priced()[0])
    of_cell = dict(zip(hashes, runs.to_dict("records"), strict=True))
    for row, cell in priced()[0]:
        run = of_cell[cell.config_hash]
        if run["status"] != "ok":
            continue
        release = releases()[row.release]
        tokens, predicted_s = int(run["output_tokens"]), float(run["makespan_s"])
        lines.append(
            asdict(row)
            | {
                "load": row.load,
                "measured_s": row.seconds,
                "predicted_s": predicted_s,
                "predicted": tokens / predicted_s,
                "error": tokens / predicted_s / row.output_tokens_per_s - 1,
                "steps": int(run["steps"]),
                "host_steps": tokens,
                "per_step_s": cell.engine.costs().per_step_s,
                "per_request_s": cell.engine.costs().per_request_s,
                "version": release.version,
                "fitted": row.model == release.fitted_model and row.gpu not in CHECK_GPUS,
                "moe": cell.llm.is_moe,
                "year": int(release.date[:4]),
            }
        )
    return pd.DataFrame(lines)


def errors(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the errors of groups of rows: how many, median, 90th percentile, signed median.

    The first two are of absolute errors. Groups keep the order of the rows.
    """
    groups = table.groupby(list(by), sort=False)["error"]
    return pd.DataFrame({name: groups.apply(measure) for name, measure in _MEASURES.items()})


def summary(error: "pd.Series[float]") -> Mapping[str, float]:
    """Return the measures of `errors` for one group; NaN if it is empty."""
    if error.empty:
        return {"n": 0, "median": np.nan, "p90": np.nan, "bias": np.nan}
    return {name: measure(error) for name, measure in _MEASURES.items()}


_MEASURES: dict[str, Callable[["pd.Series[float]"], float]] = {
    "n": len,
    "median": lambda error: float(error.abs().median()),
    "p90": lambda error: float(error.abs().quantile(0.9)),
    "bias": lambda error: float(error.median()),
}
