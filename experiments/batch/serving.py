"""Model, GPU, engine and settings of a comparison, and one simulation with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from bssim.cost_models.hardware import (
    HardwareSpec,
    load_hardware,
    precision_notes,
    window_note,
)
from bssim.cost_models.llm import LLMSpec, load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.step_cost import CostModel
from bssim.experiments.batch.assumptions import Assumptions
from bssim.sim.engine import EngineConfig, load_preset
from bssim.sim.lengths import OutputEstimator
from bssim.sim.pool_bounds import pool_bounds
from bssim.sim.result import SimulationResult
from bssim.sim.schedulers import Plan, PlanContext, Scheduler, static_plan
from bssim.sim.setup import Setup
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload
from bssim.wording import counted

IntArray = npt.NDArray[np.int64]

DEFAULT_MODEL, DEFAULT_HARDWARE, DEFAULT_ENGINE = "llama-3-8b", "a100-80gb", "vllm"
DEFAULT_COST_MODEL = "roofline"


@dataclass(frozen=True, eq=False)
class Serving:
    """The model, hardware and engine that serve the requests."""

    llm: LLMSpec
    hardware: HardwareSpec
    engine: EngineConfig
    cost_model: str = DEFAULT_COST_MODEL
    tp: int = 1
    dp: int = 1
    seed: int = 0
    on_oversize: Literal["error", "drop"] = "error"
    given: frozenset[str] = field(default_factory=frozenset)
    """Names of the settings that the user gave; the others are defaults."""

    @classmethod
    def of(
        cls,
        *,
        model: str | Path | LLMSpec | None = None,
        hardware: str | Path | HardwareSpec | None = None,
        engine: str | EngineConfig | None = None,
        cost_model: str | None = None,
        tp: int = 1,
        dp: int = 1,
        seed: int = 0,
        on_oversize: Literal["error", "drop"] = "error",
    ) -> "Serving":
        """Load everything given by name; None means the default. Raises InputError."""
        named = {"model": model, "hardware": hardware, "engine": engine, "cost_model": cost_model}
        given = {name for name, value in named.items() if value is not None}
        model = DEFAULT_MODEL if model is None else model
        hardware = DEFAULT_HARDWARE if hardware is None else hardware
        engine = DEFAULT_ENGINE if engine is None else engine
        return cls(
            llm=model if isinstance(model, LLMSpec) else load_llm(model),
            hardware=hardware if isinstance(hardware, HardwareSpec) else load_hardware(hardware),
            engine=load_preset(engine) if isinstance(engine, str) else engine,
            cost_model=cost_model or DEFAULT_COST_MODEL,
            tp=tp,
            dp=dp,
            seed=seed,
            on_oversize=on_oversize,
            given=frozenset(given),
        )

    @property
    def gpus(self) -> int:
        """GPUs of all replicas."""
        return self.tp * self.engine.pipeline_parallel_size * self.dp

    def note(self, assumed: Assumptions) -> None:
        """Record the assumptions about the model and the machine."""

        def origin(name: str) -> str:
            return "given" if name in self.given else "default"

        engine = self.engine
        assumed.add("model", self.llm.name, origin("model"))
        precision = "given" if "precision" in self.given else "the model's config"
        assumed.add("precision", self.llm.precision.label, precision)
        assumed.add("hardware", self.hardware.name, origin("hardware"))
        stages = self.engine.pipeline_parallel_size
        pp = f" x pp {stages}" if stages > 1 else ""
        assumed.add("gpus", self.gpus, f"tp {self.tp}{pp} x dp {self.dp}")
        assumed.add("engine", engine.name, origin("engine"))
        assumed.add("max_num_seqs", engine.max_num_seqs, "engine")
        assumed.add("max_num_batched_tokens", engine.max_num_batched_tokens, "engine")
        if engine.waits_unlike_vllm:
            default = "vLLM's default on CUDA is asynchronous: --set engine.async_scheduling=true"
            assumed.add("scheduling", "synchronous", default)
        assumed.add("cost_model", self.cost_model, origin("cost_model"))

    def notes(self, pool: Workload) -> tuple[str, ...]:
        """Return what to say about the model: its precision on this GPU, windows, its context."""
        window = window_note(self.llm, (pool.prompt_tokens, pool.output_tokens))
        notes = filter(None, [window, self._context_note(pool)])
        return (*precision_notes(self.llm, self.hardware), *notes)

    def _context_note(self, pool: Workload) -> str | None:
        """Return what vLLM 0.32 does to requests that the model's context cannot hold."""
        limit = self.llm.max_position_embeddings
        if not limit or self.engine.max_model_len is not None:
            return None
        outputs = pool.output_tokens if pool.max_tokens is None else pool.max_tokens
        refused = (pool.prompt_tokens > limit) | (outputs > limit)
        cut = (pool.prompt_tokens + outputs > limit) & ~refused
        does = []
        if refused.any():
            does.append(f"refuses {counted(int(refused.sum()), 'request')} (longer prompt or cap)")
        if cut.any():
            does.append(f"ends {counted(int(cut.sum()), 'output')} at this limit")
        if not does:
            return None
        return (
            f"the context of {self.llm.name} has {limit:,} tokens: vLLM {' and '.join(does)}; all "
            "are simulated whole"
        )

    def fitting(self, pool: Workload) -> Workload:
        """Return the requests that fit the KV cache; see `bssim.sim.setup.Setup.of`."""
        return self._setup(pool).workload

    def bound_s(self, pool: Workload) -> float:
        """Return the tightest lower bound of the makespan."""
        return pool_bounds(self._setup(pool), self.dp).tightest_s

    def file_order(self, pool: Workload, scheduler: str) -> "FileOrder":
        """Return the order of a scheduler whose order is fixed before the run."""
        plan = self._setup(pool).plan(scheduler, "max_tokens", seed=self.seed, replicas=self.dp)
        return FileOrder(scheduler, plan.orders)

    def simulate(
        self, pool: Workload, scheduler: str | Scheduler, lengths: str | OutputEstimator
    ) -> SimulationResult:
        """Simulate a pool; ``lengths`` is what the scheduler knows about output lengths."""
        return simulate(
            pool,
            scheduler=scheduler,
            llm=self.llm,
            hardware=self.hardware,
            engine=self.engine,
            cost_model=self._cost_model,
            output_lengths=lengths,
            seed=self.seed,
            tp=self.tp,
            dp=self.dp,
        )

    def _setup(self, pool: Workload) -> Setup:
        return Setup.of(
            pool,
            engine=self.engine,
            llm=self.llm,
            hardware=self.hardware,
            cost_model=self._cost_model,
            tp=self.tp,
            on_oversize=self.on_oversize,
        )

    @property
    def _cost_model(self) -> CostModel:
        return make_cost_model(
            self.cost_model, self.llm, self.hardware, tp=self.tp, engine=self.engine.costs()
        )


@dataclass(frozen=True, eq=False)
class FileOrder:
    """One file per replica, served in order. A stock engine needs no more than this."""

    name: str
    parts: Sequence[IntArray]
    """Rows of the pool, one array per replica."""

    @classmethod
    def of(cls, result: SimulationResult, replicas: int) -> "FileOrder":
        """Return the order in which a run admitted its requests as one file per replica."""
        schedule = result.schedule
        parts = [schedule.order[schedule.replica == k] for k in range(replicas)]
        return cls(schedule.scheduler, parts)

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`."""
        return static_plan(context, list(self.parts))
