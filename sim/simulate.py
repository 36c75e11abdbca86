"""The entry point of the simulator: one workload, one scheduler, one engine -> one result."""

import time
from collections.abc import Callable
from typing import Literal

from bssim.cost_models.density import DensityConstants
from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.step_cost import CostModel
from bssim.sim.cluster import Disaggregation, KVLink, run_replicas
from bssim.sim.collect import collected
from bssim.sim.engine import EngineConfig, StepRow
from bssim.sim.lengths import OutputEstimator
from bssim.sim.result import SimulationResult
from bssim.sim.schedule import Schedule, made_with
from bssim.sim.schedulers import Scheduler, make_scheduler
from bssim.sim.setup import Setup
from bssim.sim.workload import Workload, pool_density


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
    disaggregation: str | None = None,
    record_timeline: bool = False,
    exact_kv: bool = True,
    on_step: Callable[[StepRow], None] | None = None,
    on_oversize: Literal["error", "drop"] = "error",
    progress: Callable[[int, int], None] | None = None,
) -> SimulationResult:
    """Simulate `workload` on `dp` replicas of an engine and return what happened.

    ``scheduler`` is a registered name or an object: `ScheduleOrder` runs a schedule again.
    ``cost_model`` prices steps of ``llm`` on ``tp`` GPUs of ``hardware``. ``on_step`` gets every
    step as ``--steps`` writes it. `Fleet` explains ``exact_kv`` and ``progress``.

    With ``disaggregation``, such as ``1P2D``, prefill and decode have separate replicas, and ``dp``
    must be 1; see `run_disaggregated`. Raises InputError for unknown names, for a model that does
    not fit its GPUs, for what disaggregation does not model, and for requests that fit neither the
    KV cache nor `max_model_len`, unless ``on_oversize`` is ``"drop"``.
    """
    split = Disaggregation.checked(
        disaggregation, scheduler, engine, dp=dp, steps=on_step is not None
    )
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
        apart=None if split is None else (split, KVLink.of(llm, hardware, tp)),
        on_step=on_step,
        record_timeline=record_timeline,
        exact_kv=exact_kv,
        progress=progress,
    )
    simulated = time.perf_counter()
    pool = setup.workload
    unit = DensityConstants.of(llm, hardware, tp, (pool.prompt_tokens, pool.output_tokens))
    options = {"output_lengths": output_lengths, "seed": seed, "tp": tp, "dp": dp}
    options |= {} if disaggregation is None else {"disaggregation": disaggregation}
    schedule = Schedule.of(
        pool,
        planner.name,
        [r.core.order for r in (replicas if split is None else replicas[: split.prefill])],
        plan.estimated_output_tokens,
        left_out=len(workload) - len(pool),
        provenance=made_with(llm, hardware, engine, cost_model) | options,
    )
    return collected(
        setup,
        plan,
        replicas,
        outcome,
        schedule,
        density=pool_density(pool, unit),
        timelines=tuple(r.timeline() for r in replicas) if record_timeline else (),
        plan_wall_s=planned - began,
        sim_wall_s=simulated - planned,
    )
