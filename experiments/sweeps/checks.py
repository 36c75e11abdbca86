"""Checks of the files in a results folder. A damaged one is refused by name, or made again."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bssim.errors import InputError
from bssim.experiments.sweeps.row import COLUMN_TYPES, REQUIRED_COLUMNS

STATUSES = ("ok", "failed", "skipped")
POSITIVE = ("makespan_s", "throughput_tok_s")
"""Columns that every finished cell has, and that are above 0."""
WRITTEN = "what `bssim sweep` wrote"
TIMELINE = (
    *("start_s", "step_s", "compute_s", "memory_s", "prefill_tokens", "decode_requests"),
    *("kv_tokens", "running", "steps", "replica"),
)
"""Columns of a stored timeline that figures and reports show."""
_PARTS = {"inputs": dict, "row": dict, "workload_notes": list, "planner_notes": list, "busy": list}
_MOST = 1 << 53


def inputs_hash(inputs: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of a cell's inputs; names its record."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def is_sound(record: object, config_hash: str) -> bool:
    """Return whether ``record`` is a whole record of the cell ``config_hash``."""
    if not isinstance(record, dict):
        return False
    if not all(isinstance(record.get(name), kind) for name, kind in _PARTS.items()):
        return False
    notes = (*record["workload_notes"], *record["planner_notes"])
    row = record["row"]
    return (
        inputs_hash(record["inputs"]) == config_hash
        and set(REQUIRED_COLUMNS) <= set(row)
        and row["config_hash"] == config_hash
        and row["status"] in STATUSES
        and all(_fits(row.get(name), kind) for name, kind in COLUMN_TYPES.items())
        and (row["status"] != "ok" or all(row[name] != 0 for name in POSITIVE))
        and all(isinstance(note, str) for note in notes)
    )


def _fits(value: object, kind: str) -> bool:
    """Return whether a row may have ``value`` in a column of a pandas type."""
    if value is None:
        return True
    if kind == "string":
        return isinstance(value, str)
    if type(value) is int:
        return 0 <= value < _MOST
    return kind == "Float64" and type(value) is float and value >= 0 and math.isfinite(value)


def check_runs(path: Path, runs: pd.DataFrame) -> None:
    """Raise InputError naming line and column of a value that no sweep writes to runs.csv."""
    for name, kind in COLUMN_TYPES.items():
        if kind != "string":
            least = 0 if kind == "Int64" else -_MOST
            wrong = ~runs[name].fillna(0).between(least, _MOST)
            _refuse(path, runs, name, wrong, f"a {'count' if least == 0 else 'finite number'}")
    _refuse(path, runs, "status", ~runs["status"].isin(STATUSES), f"one of: {', '.join(STATUSES)}")
    hashes = runs["config_hash"]
    _refuse(path, runs, "config_hash", ~hashes.str.fullmatch(r"\w{1,64}"), "letters and digits")
    _refuse(path, runs, "config_hash", hashes.duplicated(), "another one in each row")
    for name in POSITIVE:
        wrong = (runs["status"] == "ok") & ~(runs[name].fillna(0) > 0)
        _refuse(path, runs, name, wrong, "a number above 0")


def _refuse(
    path: Path, runs: pd.DataFrame, name: str, wrong: "pd.Series[Any]", expected: str
) -> None:
    rows = np.flatnonzero(wrong.to_numpy(dtype=bool))
    if len(rows):
        first = int(rows[0])
        value = runs[name].iloc[first]
        shown = "nothing" if pd.isna(value) else repr(value) if isinstance(value, str) else value
        raise InputError(f"{path}: row {first + 1}: {name}", shown, expected)


def read_timeline(path: Path) -> pd.DataFrame:
    """Return a stored timeline; raises InputError if it is damaged."""
    expected = f"{WRITTEN}; delete it, and run the sweep again"
    try:
        steps = pd.read_parquet(path)
        numbers = steps[list(TIMELINE)].astype("float64")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        why = " ".join(str(error).split())
        raise InputError.saying(path, f"cannot be read ({why})", expected) from error
    if steps.empty or not np.isfinite(numbers.to_numpy()).all():
        raise InputError.saying(path, "holds no finite numbers", expected)
    return steps
