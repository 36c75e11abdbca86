"""The parts of a run, resolved once: the pool that fits, the memory and the cost model."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from bssim.cost_models.hardware import (
    HardwareSpec,
    kv_capacity_tokens,
    precision_notes,
    window_note,
)
from bssim.cost_models.llm import AttentionGroup, LLMSpec
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.step_cost import CostModel, OverlapModel
from bssim.errors import InputError
from bssim.sim.engine import EngineConfig
from bssim.sim.lengths import OutputEstimator, make_estimator
from bssim.sim.schedulers import Plan, PlanContext, Scheduler, make_scheduler
from bssim.sim.workload import Workload, select

ASYNC_NOTE = (
    "scheduling is synchronous, so the GPU waits for the CPU in every step; vLLM's default on CUDA "
    "is asynchronous, which hides that time: --set engine.async_scheduling=true"
)


@dataclass(frozen=True, eq=False)
class Setup:
    """What planning and all replicas of a run share."""

    workload: Workload
    """The requests that fit a replica."""
    engine: EngineConfig
    blocks: int
    """KV blocks of a replica that requests can use."""
    cost_model: CostModel
    overlap: OverlapModel
    windowed: AttentionGroup | None = None
    """Layers of the model with a window."""
    notes: tuple[str, ...] = ()
    """Notes about the model's precision and windows, and about scheduling, to report."""

    @classmethod
    def of(
        cls,
        workload: Workload,
        *,
        engine: EngineConfig,
        llm: LLMSpec,
        hardware: HardwareSpec,
        cost_model: CostModel,
        tp: int = 1,
        on_oversize: Literal["error", "drop"] = "error",
    ) -> Self:
        """Return the setup of one replica on ``tp`` GPUs.

        Raises InputError for a model that does not fit its GPUs, and for a request that fits
        neither the KV cache nor ``max_model_len``; with ``on_oversize="drop"`` such a request is
        dropped and counted in the notes of the pool.
        """
        blocks = usable_blocks(engine, llm, hardware, tp, workload)
        return cls(
            workload=fitting(workload, engine, blocks, on_oversize),
            engine=engine,
            blocks=blocks,
            cost_model=cost_model,
            overlap=parse_overlap(engine.overlap, hardware.corun),
            windowed=llm.windowed,
            notes=_model_notes(engine, llm, hardware, workload),
        )

    @property
    def kv_capacity_tokens(self) -> int:
        """KV tokens of one replica."""
        return self.blocks * self.engine.block_size

    def plan(
        self,
        scheduler: str | Scheduler,
        lengths: str | OutputEstimator,
        *,
        seed: int,
        replicas: int = 1,
    ) -> Plan:
        """Return the plan of a scheduler, given what it may know about output lengths.

        Sampling and planning have separate random streams, both from ``seed``. Raises
        InputError for an unknown name.
        """
        plan_rng, sample_rng = np.random.default_rng(seed).spawn(2)
        planner = make_scheduler(scheduler) if isinstance(scheduler, str) else scheduler
        known = lengths
        if isinstance(known, str):
            known = make_estimator(known, self.workload, sample_rng)
        return planner.plan(
            PlanContext(
                workload=self.workload,
                estimator=known,
                engine=self.engine,
                cost_model=self.cost_model,
                overlap=self.overlap,
                kv_capacity_tokens=self.kv_capacity_tokens,
                replicas=replicas,
                rng=plan_rng,
                windowed=self.windowed,
            )
        )


def usable_blocks(
    engine: EngineConfig, llm: LLMSpec, hardware: HardwareSpec, tp: int, workload: Workload
) -> int:
    """Return the KV blocks of a replica that requests can use (vLLM reserves block 0)."""
    if engine.num_gpu_blocks is not None:
        return engine.num_gpu_blocks - 1
    lengths = (workload.prompt_tokens, workload.output_tokens)
    tokens = kv_capacity_tokens(
        llm, hardware, tp, engine.kv_reserve, lengths, engine.pipeline_parallel_size
    )
    tokens = int(tokens * engine.kv_free_share)
    blocks = tokens // engine.block_size - 1
    if blocks < 1:
        raise InputError(
            "engine.block_size",
            engine.block_size,
            f"at most half of the {tokens} KV tokens that fit next to {llm.name} on {tp} x "
            f"{hardware.name}",
        )
    return blocks


def fitting(
    workload: Workload, engine: EngineConfig, blocks: int, on_oversize: Literal["error", "drop"]
) -> Workload:
    """Return the requests of a pool that can run, with their original ids."""
    computed = workload.prompt_tokens + workload.output_tokens - 1
    limit = blocks * engine.block_size
    what = f"the {limit} tokens of the KV cache"
    over = computed > limit
    if engine.max_model_len is not None:
        over |= workload.prompt_tokens + workload.output_tokens > engine.max_model_len
        what += f" or max_model_len {engine.max_model_len}"
    if not engine.enable_chunked_prefill:
        # A preempted request returns with its outputs as part of the prompt; with reserve
        # admission and full estimates none is, and a run where one is ends with an error.
        prompts = workload.prompt_tokens if engine.admission == "reserve" else computed
        over |= prompts > engine.max_num_batched_tokens
        what += f" or, unchunked, max_num_batched_tokens {engine.max_num_batched_tokens}"
    if not over.any():
        return workload
    first = int(np.argmax(over))
    if on_oversize == "error":
        raise InputError.saying(
            f"workload {workload.name!r}",
            f"request {workload.request_id(first)!r} has {workload.prompt_tokens[first]} prompt + "
            f"{workload.output_tokens[first]} output tokens (and {int(over.sum()) - 1:,} more "
            "requests like it)",
            f"no more than {what}. Drop them with --on-oversize drop",
        )
    if over.all():
        raise InputError.saying(f"workload {workload.name!r}", f"no request fits {what}")
    note = f"dropped {int(over.sum()):,} requests that do not fit {what}"
    return select(workload, np.flatnonzero(~over), notes=(note,))


def _model_notes(
    engine: EngineConfig, llm: LLMSpec, hardware: HardwareSpec, workload: Workload
) -> tuple[str, ...]:
    notes = list(precision_notes(llm, hardware))
    window = window_note(llm, (workload.prompt_tokens, workload.output_tokens))
    if window is not None and engine.num_gpu_blocks is None:
        notes.append(window)
    if engine.waits_unlike_vllm and hardware.name != "cpu":
        notes.append(ASYNC_NOTE)
    return tuple(notes)
