"""Data parallelism: equal and independent replicas."""

from collections.abc import Callable

import numpy as np
import simpy

from bssim.sim.cluster.fleet import Fleet
from bssim.sim.cluster.replica import STEPS_PER_TIMEOUT, Process, Replica
from bssim.sim.engine.core import EngineCore
from bssim.sim.engine.step_columns import StepRow
from bssim.sim.result import Outcome
from bssim.sim.schedulers.interface import Plan
from bssim.sim.setup import Setup


def run_side_by_side(
    fleet: Fleet, plan: Plan, on_step: Callable[[StepRow], None] | None
) -> tuple[list[Replica], Outcome]:
    """Run one replica per policy of ``plan``."""
    workload, engine = fleet.setup.workload, fleet.setup.engine
    promised = _promised_blocks(fleet.setup, plan) if engine.admission == "reserve" else None
    replicas = [
        fleet.replica(
            EngineCore(
                fleet.columns,
                policy,
                engine,
                fleet.cache(),
                promised_blocks=promised,
                on_step=_tagged(on_step, k, len(plan.policies)),
                single_steps=fleet.single_steps,
                windowed=fleet.setup.windowed,
            )
        )
        for k, policy in enumerate(plan.policies)
    ]

    def report() -> None:
        if fleet.progress is not None:
            fleet.progress(sum(r.core.finished for r in replicas), len(workload))

    env = simpy.Environment()
    for replica in replicas:
        env.process(_run(env, replica, report))
    env.run()
    finish_s = np.zeros(len(workload))
    for replica in replicas:
        finish_s[replica.core.completed] = replica.end_s[replica.core.finish_step]
    return replicas, Outcome(float(env.now), finish_s)


def _run(env: simpy.Environment, replica: Replica, report: Callable[[], None]) -> Process:
    """Advance until all requests are finished: the SimPy process."""
    while replica.core.unfinished:
        step_s = replica.price(replica.core.advance(STEPS_PER_TIMEOUT))
        report()
        yield env.timeout(float(step_s.sum()))


def _promised_blocks(setup: Setup, plan: Plan) -> list[int]:
    """Return each request's blocks for prompt and estimated output, at most the whole cache."""
    size = setup.engine.block_size
    output = np.ceil(plan.estimated_output_tokens).astype(np.int64)
    blocks = -(-(setup.workload.prompt_tokens + output) // size)
    promised: list[int] = np.minimum(blocks, setup.blocks).tolist()
    return promised


def _tagged(
    on_step: Callable[[StepRow], None] | None, replica: int, replicas: int
) -> Callable[[StepRow], None] | None:
    """Add the replica to each row if there are several replicas."""
    if on_step is None or replicas == 1:
        return on_step
    return lambda row: on_step({"replica": replica, **row})
