"""The entry point of the simulator: one workload, one scheduler, one engine -> one result."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Literal

import bssim
from bssim.cost_models.density import DensityConstants
from bssim.cost_models.hardware.spec import HardwareSpec
from bssim.cost_models.llm.spec import LLMSpec
from bssim.cost_models.step_cost import CostModel
from bssim.sim.cluster.disaggregation import Disaggregation, KVLink
from bssim.sim.cluster.replica import Replica
from bssim.sim.cluster.run import run_replicas
from bssim.sim.engine.config import EngineConfig
from bssim.sim.engine.step_columns import StepRow
from bssim.sim.lengths.estimators import OutputEstimator
from bssim.sim.pool_bounds import pool_bounds
from bssim.sim.result import Outcome, SimulationResult
from bssim.sim.schedule import Schedule
from bssim.sim.schedulers.interface import Plan, Scheduler
from bssim.sim.schedulers.registry import make_scheduler
from bssim.sim.setup import Setup
from bssim.sim.workload.request_density import pool_density
from bssim.sim.workload.workload import Workload


def simulate(
    workload: Workload,
    *,
    scheduler: str | Scheduler,
    llm: LLMSpec,
    hardware: HardwareSpec,
    engine: EngineConfig,
    cost_model: CostModel,
    output_lengths: str | OutputEstimator = "sampled",
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
    called with (finished requests, all requests).

    With ``disaggregation``, prefill and decode have separate replicas, and ``dp`` must be 1;
    see `bssim.sim.cluster.disaggregated.run_disaggregated`.

    Raises InputError for unknown names, for a model that does not fit its GPUs, for what
    disaggregation does not model (`Disaggregation.check`), and, unless ``on_oversize`` is
    ``"drop"``, for requests that fit neither the KV cache nor `max_model_len`.
    """
    if disaggregation is not None:
        disaggregation.check(scheduler, engine, dp=dp, steps=on_step is not None)
    setup = Setup.of(
        workload,
        engine=engine,
        llm=llm,
        hardware=hardware,
        cost_model=cost_model,
        tp=tp,
        on_oversize=on_oversize,
    )
    began = time.perf_counter()
    planner = make_scheduler(scheduler) if isinstance(scheduler, str) else scheduler
    plan = setup.plan(planner, output_lengths, seed=seed, replicas=dp)
    planned = time.perf_counter()
    replicas, outcome = run_replicas(
        setup,
        plan,
        apart=None if disaggregation is None else (disaggregation, KVLink.of(llm, hardware, tp)),
        on_step=on_step,
        record_timeline=record_timeline,
        progress=progress,
    )
    simulated = time.perf_counter()
    admitting = replicas if disaggregation is None else replicas[: disaggregation.prefill]
    pool = setup.workload
    unit = DensityConstants.of(llm, hardware, tp, (pool.prompt_tokens, pool.output_tokens))
    schedule = Schedule.of(
        pool,
        planner.name,
        [replica.core.order for replica in admitting],
        plan.estimated_output_tokens,
        left_out=len(workload) - len(pool),
        provenance={
            **_origin(llm, hardware, engine, cost_model),
            "output_lengths": output_lengths,
            "seed": seed,
            "tp": tp,
            "dp": dp,
            **({} if disaggregation is None else {"disaggregation": str(disaggregation)}),
        },
    )
    return replace(
        _collected(setup, plan, replicas, outcome, schedule, pool_density(pool, unit)),
        timelines=tuple(r.timeline() for r in replicas) if record_timeline else (),
        plan_wall_s=planned - began,
        sim_wall_s=simulated - planned,
    )


def _origin(
    llm: LLMSpec, hardware: HardwareSpec, engine: EngineConfig, cost_model: CostModel
) -> dict[str, object]:
    """Return the provenance that a schedule records."""
    return {
        "bssim_version": bssim.__version__,
        "engine": asdict(engine),
        "model": llm.name,
        "hardware": hardware.name,
        "cost_model": cost_model.name,
    }


def _collected(
    setup: Setup,
    plan: Plan,
    replicas: list[Replica],
    outcome: Outcome,
    schedule: Schedule,
    density: float,
) -> SimulationResult:
    """Return the sums over replicas."""
    workload = setup.workload
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
        max_cached_tokens=workload.most_hits,
        preemptions=sum(core.preemptions for core in cores),
        recomputed_tokens=sum(core.recomputed_tokens for core in cores),
        peak_kv_tokens=max(core.peak_held for core in cores) * setup.engine.block_size,
        bounds=pool_bounds(setup, len(replicas)),
        finish_s=outcome.finish_s,
        schedule=schedule,
        workload=workload,
        density=density,
        busy_s=tuple(float(r.step_s.sum()) for r in replicas),
        transfers=outcome.transfers,
        notes=(
            *workload.notes,
            *setup.notes,
            *plan.notes,
            *(note for policy in plan.policies for note in policy.notes()),
            *outcome.notes,
        ),
    )
