"""Data parallelism: equal and independent replicas."""

from collections.abc import Callable

import numpy as np
import simpy

from bssim.sim.cluster.fleet import Fleet
from bssim.sim.cluster.replica import STEPS_PER_TIMEOUT, Process, Replica
from bssim.sim.engine import StepRow
from bssim.sim.result import Outcome
from bssim.sim.schedulers import Plan
from bssim.sim.setup import Setup


def run_side_by_side(
    fleet: Fleet, plan: Plan, on_step: Callable[[StepRow], None] | None
) -> tuple[list[Replica], Outcome]:
    """Run one replica per policy of ``plan``."""
    workload, engine = fleet.setup.workload, fleet.setup.engine
    promised = _promised_blocks(fleet.setup, plan) if engine.admission == "reserve" else None
    listeners = _tagged(on_step, len(plan.policies))
    replicas = [
        fleet.replica(policy, promised_blocks=promised, on_step=listener)
        for policy, listener in zip(plan.policies, listeners, strict=True)
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
    on_step: Callable[[StepRow], None] | None, replicas: int
) -> list[Callable[[StepRow], None] | None]:
    """Return ``on_step`` for each replica; it adds the replica to a row if there are several."""
    if on_step is None or replicas == 1:
        return [on_step] * replicas

    def tag(replica: int) -> Callable[[StepRow], None]:
        return lambda row: on_step({"replica": replica, **row})

    return [tag(k) for k in range(replicas)]
