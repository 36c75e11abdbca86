"""One cell of a sweep: all inputs of its result, its content hash, its columns in a row."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from bssim import __version__
from bssim.cost_models.engine_costs import engine_file
from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.registry import fitted_file
from bssim.experiments.sweeps.checks import inputs_hash
from bssim.experiments.sweeps.workload_ref import WorkloadRef, file_digest
from bssim.sim.cluster import Disaggregation
from bssim.sim.engine import EngineConfig


@dataclass(frozen=True)
class Cell:
    """One simulation, fully resolved: equal cells give equal results."""

    workload: WorkloadRef
    scheduler: str
    llm: LLMSpec
    hardware: HardwareSpec
    engine: EngineConfig
    cost_model: str = "roofline"
    output_lengths: str = "sampled"
    seed: int = 0
    tp: int = 1
    dp: int = 1
    disaggregation: str | None = None
    """Prefill and decode replicas, such as ``1P2D``; None: every replica does both."""
    on_oversize: Literal["error", "drop"] = "error"
    config: str = "simulate"
    """Name of the sweep; a label that is not part of the hash."""

    def inputs(self) -> dict[str, Any]:
        """Return everything that decides the result, as plain JSON values."""
        inputs = asdict(self)
        del inputs["config"]
        if self.disaggregation is None:  # colocated cells keep the hash they had without the field
            del inputs["disaggregation"]
        inputs["file_digests"] = self.file_digests
        inputs["bssim_version"] = __version__
        plain: dict[str, Any] = json.loads(json.dumps(inputs, default=_plain))
        return plain

    @cached_property
    def file_digests(self) -> dict[str, str]:
        """Digests of the files that the cell reads: as they were when it got its hash."""
        digests = self.workload.file_digests()
        fitted = fitted_file(self.cost_model)
        if fitted is not None:
            digests[str(fitted)] = file_digest(str(fitted))
        constants = engine_file(self.engine.version)
        if constants is not None:
            digests[constants.name] = file_digest(str(constants))
        return digests

    @cached_property
    def config_hash(self) -> str:
        """The hash of `inputs`, see `inputs_hash`; names the cell's record."""
        return inputs_hash(self.inputs())

    def identity(self) -> dict[str, Any]:
        """Return the columns of runs.csv that identify the cell of a row."""
        engine, dp = self.engine.name, self.dp
        if self.disaggregation is not None:
            engine = f"{engine}-{self.disaggregation}"
            dp = Disaggregation.parse(self.disaggregation).replicas  # dp x tp counts the GPUs
        return {
            "config": self.config,
            "workload": self.workload.label,
            "scheduler": self.scheduler,
            "model": self.llm.name,
            "hardware": self.hardware.name,
            "engine": engine,
            "overlap": self.engine.overlap,
            "dp": dp,
            "tp": self.tp,
            "seed": self.seed,
            "num_requests": self.workload.num_requests,
            "cost_model": self.cost_model,
            "output_lengths": self.output_lengths,
            "bssim_version": __version__,
            "config_hash": self.config_hash,
            "dtype": self.llm.precision.dtype,
            "quantization": self.llm.precision.quantization or "none",
            "kv_cache_dtype": self.llm.precision.kv_cache_dtype,
            "pp": self.engine.pipeline_parallel_size,
        }


def _plain(value: object) -> object:
    """Return a JSON form of a value that `json` cannot write; different values differ."""
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        data = hashlib.sha256(little.tobytes()).hexdigest()
        return {"dtype": little.dtype.str, "shape": value.shape, "sha256": data}
    return str(value)
