"""The columns of runs.csv and their values for a cell. Tools rely on the names: keep them."""

import math
from collections.abc import Mapping
from typing import Any

from bssim.sim.result import SimulationResult

_FIRST_COLUMNS = (
    dict.fromkeys(
        ("config", "workload", "scheduler", "model", "hardware", "engine", "overlap"), "string"
    )
    | dict.fromkeys(("dp", "tp", "seed", "num_requests", "prompt_tokens", "output_tokens"), "Int64")
    | dict.fromkeys(("density", "sharing_max", "sharing", "makespan_s"), "Float64")
    | dict.fromkeys(
        ("throughput_tok_s", "optimum_tok_s", "share_of_optimum", "share_of_bound"), "Float64"
    )
    | dict.fromkeys(("compute_s", "memory_s"), "Float64")
    | dict.fromkeys(("steps", "preemptions", "recomputed_tokens", "peak_kv_tokens"), "Int64")
    | dict.fromkeys(("plan_wall_s", "sim_wall_s"), "Float64")
    | dict.fromkeys(
        ("cost_model", "output_lengths", "bssim_version", "config_hash", "status", "error"),
        "string",
    )
)
_LATER_COLUMNS = (
    dict.fromkeys(("dtype", "quantization", "kv_cache_dtype"), "string")
    | {"pp": "Int64"}
    | dict.fromkeys(("tail_share", "throughput_without_tail_tok_s"), "Float64")
)
COLUMN_TYPES = _FIRST_COLUMNS | _LATER_COLUMNS
"""Column -> pandas type, in order. All seconds are simulated, except the two ``*_wall_s``."""

COLUMNS = tuple(COLUMN_TYPES)
REQUIRED_COLUMNS = tuple(_FIRST_COLUMNS)
"""The columns that every results folder has. Later ones are empty in folders from before them."""


def ok_row(identity: Mapping[str, Any], result: SimulationResult) -> dict[str, Any]:
    """Return the row of a finished cell, keys in the order of COLUMNS.

    ``identity`` has the columns that identify the cell.
    """
    values = {
        **identity,
        "workload": result.workload.name,
        "num_requests": result.num_requests,
        "prompt_tokens": result.prompt_tokens,
        "output_tokens": result.output_tokens,
        "density": result.density,
        "sharing_max": result.sharing_max,
        "sharing": result.sharing,
        "makespan_s": result.makespan_s,
        "throughput_tok_s": result.throughput_tok_s,
        "optimum_tok_s": result.optimum_tok_s,
        "share_of_optimum": result.share_of_optimum,
        "share_of_bound": result.share_of_bound,
        "compute_s": result.compute_s,
        "memory_s": result.memory_s,
        "steps": result.steps,
        "preemptions": result.preemptions,
        "recomputed_tokens": result.recomputed_tokens,
        "peak_kv_tokens": result.peak_kv_tokens,
        "plan_wall_s": result.plan_wall_s,
        "sim_wall_s": result.sim_wall_s,
        "tail_share": result.tail_share,
        "throughput_without_tail_tok_s": result.throughput_without_tail_tok_s,
        "status": "ok",
        "error": "",
    }
    return {column: _plain(values[column]) for column in COLUMNS}


def failed_row(identity: Mapping[str, Any], error: str, status: str = "failed") -> dict[str, Any]:
    """Return the row of a cell without a result: its identity and the reason."""
    values = {**identity, "status": status, "error": " ".join(error.split())}
    return {column: values.get(column) for column in COLUMNS}


def _plain(value: Any) -> Any:
    """Return a numpy scalar as a Python value; NaN and infinity, which JSON lacks, as None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
