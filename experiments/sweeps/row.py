"""The columns of runs.csv and how a cell fills them; tools read these names, they do not change."""

import math
from typing import TYPE_CHECKING, Any

from bssim import __version__
from bssim.cost_models.density import DensityConstants
from bssim.sim.cluster.disaggregation import Disaggregation
from bssim.sim.result import SimulationResult
from bssim.sim.workload.request_density import pool_density
from bssim.sim.workload.workload import Workload

if TYPE_CHECKING:
    from bssim.experiments.sweeps.cell import Cell

COLUMN_TYPES = (
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
    | dict.fromkeys(("dtype", "quantization", "kv_cache_dtype"), "string")
)
"""Column -> pandas type, in order. Seconds are simulated but for the two ``*_wall_s``."""

COLUMNS = tuple(COLUMN_TYPES)


def ok_row(cell: "Cell", workload: Workload, result: SimulationResult) -> dict[str, Any]:
    """Return the row of a finished cell, keys in the order of COLUMNS."""
    values = _identity(cell) | {
        "workload": workload.name,
        "num_requests": result.num_requests,
        "prompt_tokens": result.prompt_tokens,
        "output_tokens": result.output_tokens,
        "density": pool_density(workload, DensityConstants.of(cell.llm, cell.hardware, cell.tp)),
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
        "status": "ok",
        "error": "",
    }
    return {column: _plain(values[column]) for column in COLUMNS}


def failed_row(cell: "Cell", error: str, status: str = "failed") -> dict[str, Any]:
    """Return the row of a cell without a result: what it was, and why there is none."""
    values = _identity(cell) | {"status": status, "error": " ".join(error.split())}
    return {column: values.get(column) for column in COLUMNS}


def _identity(cell: "Cell") -> dict[str, Any]:
    engine, dp = cell.engine.name, cell.dp
    if cell.disaggregation is not None:
        engine = f"{engine}-{cell.disaggregation}"
        dp = Disaggregation.parse(cell.disaggregation).replicas  # so that dp x tp counts the GPUs
    return {
        "config": cell.config,
        "workload": cell.workload.label,
        "scheduler": cell.scheduler,
        "model": cell.llm.name,
        "hardware": cell.hardware.name,
        "engine": engine,
        "overlap": cell.engine.overlap,
        "dp": dp,
        "tp": cell.tp,
        "seed": cell.seed,
        "num_requests": cell.workload.num_requests,
        "cost_model": cell.cost_model,
        "output_lengths": cell.output_lengths,
        "bssim_version": __version__,
        "config_hash": cell.config_hash,
        "dtype": cell.llm.precision.dtype,
        "quantization": cell.llm.precision.quantization or "none",
        "kv_cache_dtype": cell.llm.precision.kv_cache_dtype,
    }


def _plain(value: Any) -> Any:
    """Return a numpy scalar as Python's own; NaN and infinity, which JSON lacks, as None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
