"""Costs that depend on the engine: the CPU work of a step, and the choice of kernels.

The CPU work of a step has three parts: a constant (the scheduling loop), a part per running
request (input preparation, output processing), and the kernel launches of a step without a CUDA
graph. Launches overlap with the GPU. The other two parts also overlap if the engine schedules step
k+1 while the GPU computes step k (`async_scheduling`); otherwise the GPU waits for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bssim.cost_models.step_cost import FloatArray, StepWork
from bssim.errors import unknown_name
from bssim.yaml_file import read_yaml

SPECS = Path(__file__).parent / "specs" / "engines"
HOST = ("per_step", "per_request", "per_layer")


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
    InputError for an unknown name, and for a file with unknown, missing or wrong keys.
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
    # pydantic is imported only for a file
    from bssim.cost_models.engine_schema import EngineFile
    from bssim.schema import validated

    found = validated(read_yaml(path, "a YAML file of an engine's costs"), EngineFile)
    host = found.host_s
    return EngineCosts(
        name=found.name or path.stem,
        per_step_s=host.per_step.value,
        per_request_s=host.per_request.value,
        per_layer_s=host.per_layer.value,
        graph_tokens=0 if enforce_eager else found.graph_tokens,
        all_reduce="nccl" if disable_custom_all_reduce else found.all_reduce,
        kernels=found.kernels,
        async_scheduling=async_scheduling,
        expert_parallel=enable_expert_parallel,
        pp=pipeline_parallel_size,
        sources={f"host_s.{key}": getattr(host, key).source for key in HOST},
    )
