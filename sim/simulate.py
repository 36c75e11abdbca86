"""The front door of the simulator: one workload, one scheduler, one engine -> one result."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Literal

import numpy as np

import bssim
from bssim.cost_models.bounds import Bounds, compute_bounds
from bssim.cost_models.device_formats import precision_notes
from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.kv_capacity import kv_capacity_tokens, window_note
from bssim.cost_models.llm.attention import AttentionGroup
from bssim.cost_models.llm.spec import LLMSpec
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.step_cost import CostModel, OverlapModel, StepWork, attention_pairs
from bssim.errors import InputError
from bssim.sim.cluster.cluster import Setup, run_disaggregated, run_side_by_side
from bssim.sim.cluster.disaggregation import Disaggregation, KVLink
from bssim.sim.engine.config import EngineConfig
from bssim.sim.engine.core import EngineCore
from bssim.sim.engine.step_columns import StepRow
from bssim.sim.lengths.estimators import make_estimator
from bssim.sim.result import SimulationResult
from bssim.sim.schedule import Schedule
from bssim.sim.schedulers.interface import Plan, PlanContext, Scheduler
from bssim.sim.schedulers.registry import fixed_order_names, make_scheduler
from bssim.sim.workload.combine import take
from bssim.sim.workload.prefix_tree import infinite_cache_hits
from bssim.sim.workload.workload import Workload


def simulate(
    workload: Workload,
    *,
    scheduler: str | Scheduler,
    llm: LLMSpec,
    hardware: HardwareSpec,
    engine: EngineConfig,
    cost_model: CostModel,
    output_lengths: str = "sampled",
    seed: int = 0,
    tp: int = 1,
    dp: int = 1,
    disaggregation: Disaggregation | None = None,
    record_timeline: bool = False,
    on_step: Callable[[StepRow], None] | None = None,
    on_oversize: Literal["error", "drop"] = "error",
    progress: Callable[[int, int], None] | None = None,
) -> SimulationResult:
    """Simulate `workload` on `dp` replicas of an engine and return what happened.

    ``scheduler`` is a registered name or an object: `ScheduleOrder` runs a schedule again.
    ``cost_model`` prices steps of ``llm`` on ``tp`` GPUs of ``hardware``. ``on_step`` gets every
    step as ``--steps`` writes it (with ``replica`` added when there are several). ``progress`` is
    told (finished requests, all requests).

    With ``disaggregation``, prefill and decode have replicas of their own, and ``dp`` must be 1;
    see `bssim.sim.cluster.cluster.run_disaggregated`.

    Raises InputError for unknown names, for a model that does not fit its GPUs, for what
    disaggregation does not model (`check_disaggregation`), and, unless ``on_oversize`` is
    ``"drop"``, for requests that fit neither the KV cache nor `max_model_len`.
    """
    if disaggregation is not None:
        check_disaggregation(disaggregation, scheduler, engine, dp=dp, steps=on_step is not None)
    num_replicas = dp if disaggregation is None else disaggregation.replicas
    blocks = _usable_blocks(engine, llm, hardware, tp, workload)
    workload = _fitting(workload, engine, blocks, on_oversize)
    overlap = parse_overlap(engine.overlap, hardware.corun)
    plan_rng, sample_rng = np.random.default_rng(seed).spawn(2)

    began = time.perf_counter()
    estimator = make_estimator(output_lengths, workload, sample_rng)
    planner = make_scheduler(scheduler) if isinstance(scheduler, str) else scheduler
    plan = planner.plan(
        PlanContext(
            workload=workload,
            estimator=estimator,
            engine=engine,
            cost_model=cost_model,
            overlap=overlap,
            kv_capacity_tokens=blocks * engine.block_size,
            replicas=dp,
            rng=plan_rng,
        )
    )
    planned = time.perf_counter()

    setup = Setup(workload, engine, blocks, cost_model, overlap, record_timeline, progress)
    if disaggregation is None:
        replicas, outcome = run_side_by_side(setup, plan, on_step)
    else:
        link = KVLink.of(llm, hardware, tp)
        replicas, outcome = run_disaggregated(setup, plan, disaggregation, link)
    simulated = time.perf_counter()

    costs = [cost for replica in replicas for cost in replica.costs]
    cores = [replica.core for replica in replicas]
    return SimulationResult(
        num_requests=len(workload),
        prompt_tokens=int(workload.prompt_tokens.sum()),
        output_tokens=int(workload.output_tokens.sum()),
        makespan_s=outcome.makespan_s,
        compute_s=float(sum(c.compute_s for c in costs)),
        memory_s=float(sum(c.memory_s for c in costs)),
        communication_s=float(sum(c.communication_s for c in costs)),
        fixed_s=float(sum(c.fixed_s for c in costs)),
        steps=sum(core.step for core in cores),
        cached_tokens=sum(core.cached_tokens for core in cores),
        max_cached_tokens=int(workload.max_cached_tokens.sum()),
        preemptions=sum(core.preemptions for core in cores),
        recomputed_tokens=sum(core.recomputed_tokens for core in cores),
        peak_kv_tokens=max(core.peak_held for core in cores) * engine.block_size,
        bounds=pool_bounds(
            workload,
            cost_model,
            overlap,
            blocks * engine.block_size,
            num_replicas,
            windowed=llm.windowed,
        ),
        finish_s=outcome.finish_s,
        schedule=_schedule(
            workload,
            planner.name,
            cores if disaggregation is None else cores[: disaggregation.prefill],
            plan,
            provenance={
                "bssim_version": bssim.__version__,
                "seed": seed,
                "engine": asdict(engine),
                "model": llm.name,
                "hardware": hardware.name,
                "cost_model": cost_model.name,
                "output_lengths": output_lengths,
                "tp": tp,
                "dp": dp,
                **({} if disaggregation is None else {"disaggregation": str(disaggregation)}),
            },
        ),
        timelines=tuple(r.timeline() for r in replicas) if record_timeline else (),
        busy_s=tuple(float(r.step_s.sum()) for r in replicas),
        transfers=outcome.transfers,
        plan_wall_s=planned - began,
        sim_wall_s=simulated - planned,
        notes=(
            *workload.notes,
            *_model_notes(engine, llm, hardware, workload),
            *plan.notes,
            *(n for p in plan.policies for n in p.notes()),
            *outcome.notes,
        ),
    )


def check_disaggregation(
    disaggregation: Disaggregation,
    scheduler: str | Scheduler,
    engine: EngineConfig,
    *,
    dp: int = 1,
    steps: bool = False,
) -> None:
    """Raise InputError for what does not go together with prefill/decode disaggregation."""
    beside = f"beside disaggregation {disaggregation}"
    if dp != 1:
        raise InputError("dp", f"{dp} {beside}", "1, for the split says how many replicas")
    if isinstance(scheduler, str) and scheduler not in fixed_order_names():
        raise InputError(
            "scheduler",
            f"{scheduler!r} {beside}",
            f"a fixed order, one of: {', '.join(fixed_order_names())}",
        )
    if engine.admission != "optimistic":
        raise InputError("engine.admission", f"{engine.admission!r} {beside}", "'optimistic'")
    if engine.async_scheduling:
        raise InputError("engine.async_scheduling", f"true {beside}", "false")
    if steps:
        raise InputError("--steps", beside, "colocated replicas")


def _model_notes(
    engine: EngineConfig, llm: LLMSpec, hardware: HardwareSpec, workload: Workload
) -> tuple[str, ...]:
    """Return what a run must say about the model's precision and windows."""
    window = window_note(llm, (workload.prompt_tokens, workload.output_tokens))
    if window is None or engine.num_gpu_blocks is not None:
        return precision_notes(llm, hardware)
    return (*precision_notes(llm, hardware), window)


def least_work(workload: Workload, windowed: AttentionGroup | None = None) -> StepWork:
    """Return what any order must compute: every token but the last of each output, hits left out.

    Scalars; hits are the most that any order can have. This is the work that the practical
    optimum prices. ``windowed``: layers of the model that have a window.
    """
    p = workload.prompt_tokens.astype(np.float64)
    d = workload.output_tokens.astype(np.float64)
    shortest_first = np.argsort(workload.prompt_tokens, kind="stable")
    hit = infinite_cache_hits(
        workload.tree, workload.node, workload.prompt_tokens, shortest_first
    ).astype(np.float64)
    windows = {}
    if windowed is not None:
        # a query sees its visible context and itself
        decode = windowed.visible_pairs(d - 1, p) - (d - 1)
        windows = {
            "window_decode_tokens": float(decode.sum()),
            "window_prefill_context_tokens": float(windowed.visible_context(hit).sum()),
            "window_attention_pairs": float(windowed.visible_pairs(p - hit, hit).sum()),
        }
    return StepWork(
        **windows,
        decode_requests=float((d - 1).sum()),
        decode_context_tokens=float(((d - 1) * p + (d - 1) * (d - 2) / 2).sum()),
        prefill_requests=float(len(workload)),
        prefill_tokens=float((p - hit).sum()),
        prefill_context_tokens=float(hit.sum()),
        prefill_attention_pairs=float(attention_pairs(p - hit, hit).sum()),
        sampled_tokens=float(d.sum()),
    )


def pool_bounds(
    workload: Workload,
    cost_model: CostModel,
    overlap: OverlapModel,
    kv_capacity: int,
    replicas: int,
    *,
    windowed: AttentionGroup | None = None,
) -> Bounds:
    """Return the lower bounds on the makespan of a pool; see `bssim.cost_models.bounds`.

    ``windowed``: layers of the model that have a window.
    """
    d = workload.output_tokens.astype(np.float64)
    # Only tokens that no other request can hold count: shared ones may be held once for many.
    private = (workload.prompt_tokens - workload.shared_tokens).astype(np.float64)
    return compute_bounds(
        least_work(workload, windowed),
        cost_model,
        overlap,
        longest_output_tokens=int(d.max()),
        kv_token_steps=float(((d - 1) * private + d * (d - 1) / 2).sum()),
        kv_capacity_tokens=kv_capacity,
        replicas=replicas,
    )


def _usable_blocks(
    engine: EngineConfig, llm: LLMSpec, hardware: HardwareSpec, tp: int, workload: Workload
) -> int:
    """Return the KV blocks of a replica that requests can use (vLLM keeps block 0 for itself)."""
    if engine.num_gpu_blocks is not None:
        return engine.num_gpu_blocks - 1
    lengths = (workload.prompt_tokens, workload.output_tokens)
    tokens = kv_capacity_tokens(llm, hardware, tp, engine.kv_reserve, lengths)
    tokens = int(tokens * engine.kv_free_share)
    blocks = tokens // engine.block_size - 1
    if blocks < 1:
        raise InputError(
            "engine.block_size",
            engine.block_size,
            (
                f"at most half of the {tokens} KV tokens that fit beside {llm.name} on {tp} x "
                f"{hardware.name}"
            ),
        )
    return blocks


def fitting(
    workload: Workload,
    *,
    engine: EngineConfig,
    llm: LLMSpec,
    hardware: HardwareSpec,
    tp: int = 1,
    on_oversize: Literal["error", "drop"] = "error",
) -> Workload:
    """Return the requests of a pool that can run at all: what `simulate` runs.

    Raises InputError for a request that fits neither the KV cache nor `max_model_len`, unless
    ``on_oversize`` is ``"drop"``: then it is left out, with a count in the notes.
    """
    blocks = _usable_blocks(engine, llm, hardware, tp, workload)
    return _fitting(workload, engine, blocks, on_oversize)


def _fitting(
    workload: Workload, engine: EngineConfig, blocks: int, on_oversize: Literal["error", "drop"]
) -> Workload:
    """Return the workload without requests that can never run; see `simulate`."""
    computed = workload.prompt_tokens + workload.output_tokens - 1
    limit = blocks * engine.block_size
    what = f"the {limit} tokens of the KV cache"
    over = computed > limit
    if engine.max_model_len is not None:
        over |= workload.prompt_tokens + workload.output_tokens > engine.max_model_len
        what += f" or max_model_len {engine.max_model_len}"
    if not engine.enable_chunked_prefill:
        # a preempted request comes back with its outputs as part of the prompt
        over |= computed > engine.max_num_batched_tokens
        what += f" or, unchunked, max_num_batched_tokens {engine.max_num_batched_tokens}"
    if not over.any():
        return workload
    first = int(np.argmax(over))
    if on_oversize == "error":
        raise InputError.saying(
            f"workload {workload.name!r}",
            (
                f"request {workload.request_id(first)!r} has {workload.prompt_tokens[first]} "
                f"prompt + {workload.output_tokens[first]} output tokens "
                f"(and {int(over.sum()) - 1} more requests like it)"
            ),
            f"no more than {what}. Drop them with --on-oversize drop",
        )
    if over.all():
        raise InputError.saying(f"workload {workload.name!r}", f"no request fits {what}")
    return take(
        workload,
        np.flatnonzero(~over),
        notes=(*workload.notes, f"dropped {int(over.sum())} requests that do not fit {what}"),
    )


def _schedule(
    workload: Workload,
    scheduler: str,
    cores: list[EngineCore],
    plan: Plan,
    provenance: dict[str, object],
) -> Schedule:
    order = np.concatenate([np.asarray(core.order, dtype=np.int64) for core in cores])
    return Schedule(
        workload=workload.name,
        workload_digest=workload.digest(),
        scheduler=scheduler,
        order=order,
        replica=np.repeat(
            np.arange(len(cores), dtype=np.int32), [len(core.order) for core in cores]
        ),
        estimated_output_tokens=plan.estimated_output_tokens[order],
        provenance=provenance,
    )
