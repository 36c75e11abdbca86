"""Costs that depend on the engine: the CPU work of a step, and the choice of kernels.

The CPU work of a step has three parts: a constant (the scheduling loop), a part per running
request (input preparation, output processing), and the kernel launches of a step without a CUDA
graph. Launches overlap with the GPU. The other two parts also overlap if the engine schedules step
k+1 while the GPU computes step k (`async_scheduling`); otherwise the GPU waits for them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bssim.cost_models.hardware import known_kernels
from bssim.cost_models.step_cost import FloatArray, StepWork
from bssim.errors import InputError, unknown_name

SPECS = Path(__file__).parent / "specs" / "engines"
HOST = ("per_step", "per_request", "per_layer")
ALL_REDUCE = ("vllm", "nccl", "trtllm")


@dataclass(frozen=True, slots=True)
class EngineCosts:
    """The constants of one engine version, and the settings that decide how they apply."""

    name: str = "none"
    per_step_s: float = 0.0
    """CPU seconds of every step."""
    per_request_s: float = 0.0
    """CPU seconds for each request that is scheduled in a step."""
    per_layer_s: float = 0.0
    """CPU seconds to launch the kernels of one layer without a CUDA graph."""
    graph_tokens: int = 0
    """Steps of at most this many tokens run as CUDA graphs and pay no launches; 0: no graphs."""
    all_reduce: str = "vllm"
    """``vllm``: its own one-shot and two-shot kernels for small messages; ``nccl``; ``trtllm``."""
    kernels: str = "vllm"
    """Whose GEMM and attention kernels run: ``vllm``, or a folder of cost_models/specs/kernels."""
    async_scheduling: bool = False
    """Step k+1 is scheduled while the GPU computes step k."""
    expert_parallel: bool = False
    """Each GPU of a tensor-parallel group holds whole experts instead of a part of each."""
    pp: int = 1
    """Stages of the pipeline that the layers are split over."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Provenance of each constant, by its name in the file."""

    @property
    def provenance(self) -> str:
        """Where the host constants come from, as one text."""
        texts = dict.fromkeys(self.sources.values())
        return f"{self.name}: {'; '.join(texts)}" if texts else self.name

    def waited_s(self, work: StepWork) -> FloatArray:
        """Return the CPU seconds, per step, that the GPU waits for."""
        if self.async_scheduling:
            return np.zeros_like(np.asarray(work.tokens, dtype=np.float64))
        return self._scheduling_s(work)

    def beside_s(self, work: StepWork, layers: int) -> FloatArray:
        """Return the CPU seconds that overlap with the GPU; a step takes at least this long."""
        tokens = np.asarray(work.tokens, dtype=np.float64)
        launches = np.where(tokens > self.graph_tokens, layers * self.per_layer_s, 0.0)
        return launches + self._scheduling_s(work) if self.async_scheduling else launches

    def _scheduling_s(self, work: StepWork) -> FloatArray:
        scheduled = np.asarray(work.decode_requests) + np.asarray(work.prefill_requests)
        seconds = self.per_step_s + self.per_request_s * scheduled
        return np.asarray(np.where(np.asarray(work.tokens) > 0, seconds, 0.0))


NO_ENGINE = EngineCosts()
"""No CPU work at all, and vLLM's all-reduce."""


def known_engines() -> list[str]:
    """Return the engine versions whose constants are shipped."""
    return ["none", *sorted(path.stem for path in SPECS.glob("*.yaml"))]


def engine_file(name: str) -> Path | None:
    """Return the file with the constants of an engine version; None if it has none.

    A ``name`` that ends in ``.yaml`` is the path of your own file.
    """
    path = Path(name) if name.endswith(".yaml") else SPECS / f"{name}.yaml"
    return path if path.is_file() else None


def load_engine_costs(
    name: str,
    *,
    async_scheduling: bool = False,
    enforce_eager: bool = False,
    disable_custom_all_reduce: bool = False,
    enable_expert_parallel: bool = False,
    pipeline_parallel_size: int = 1,
) -> EngineCosts:
    """Return the constants of an engine version, or of your own file, with vLLM's settings applied.

    ``enforce_eager`` turns CUDA graphs off; ``disable_custom_all_reduce`` leaves only NCCL. Raises
    InputError for an unknown name and for a file with missing or wrong fields.
    """
    if name == "none":
        return EngineCosts(
            all_reduce="nccl" if disable_custom_all_reduce else NO_ENGINE.all_reduce,
            async_scheduling=async_scheduling,
            expert_parallel=enable_expert_parallel,
            pp=pipeline_parallel_size,
        )
    path = engine_file(name)
    if path is None:
        raise unknown_name("engine.version", name, (*known_engines(), "FILE.yaml"))
    data = _read(path)
    sources: dict[str, str] = {}
    host = data.get("host_s")
    if not isinstance(host, dict) or set(host) != set(HOST):
        raise InputError(f"{path}: host_s", repr(host), f"the keys {', '.join(HOST)}")
    seconds = {key: _number(path, key, host[key], sources) for key in HOST}
    if data.get("all_reduce") not in ALL_REDUCE:
        raise unknown_name(f"{path}: all_reduce", str(data.get("all_reduce")), ALL_REDUCE)
    kernels = str(data.get("kernels", "vllm"))
    if kernels not in known_kernels():
        raise unknown_name(f"{path}: kernels", kernels, known_kernels())
    return EngineCosts(
        name=str(data.get("name", path.stem)),
        per_step_s=seconds["per_step"],
        per_request_s=seconds["per_request"],
        per_layer_s=seconds["per_layer"],
        graph_tokens=0 if enforce_eager else int(data.get("graph_tokens", 0)),
        all_reduce="nccl" if disable_custom_all_reduce else data["all_reduce"],
        kernels=kernels,
        async_scheduling=async_scheduling,
        expert_parallel=enable_expert_parallel,
        pp=pipeline_parallel_size,
        sources=sources,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise InputError.saying(path, f"expected YAML; {error}") from None
    if not isinstance(data, dict):
        raise InputError(path, type(data).__name__, "a mapping of fields")
    return data


def _number(path: Path, key: str, entry: Any, sources: dict[str, str]) -> float:
    """Read ``{value: seconds, source: text}``."""
    try:
        value, source = float(entry["value"]), str(entry["source"])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: host_s.{key}", repr(entry), "{value: SECONDS, source: TEXT}"
        ) from None
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{path}: host_s.{key}.value", repr(value), "at least 0")
    sources[f"host_s.{key}"] = source
    return value
