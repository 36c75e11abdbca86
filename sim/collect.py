"""The result of a run, made of what its replicas recorded."""

from bssim.sim.cluster import Replica
from bssim.sim.pool_bounds import pool_bounds
from bssim.sim.result import Outcome, SimulationResult, Timeline
from bssim.sim.schedule import Schedule
from bssim.sim.schedulers import Plan
from bssim.sim.setup import Setup
from bssim.sim.tail import find_tail


def collected(
    setup: Setup,
    plan: Plan,
    replicas: list[Replica],
    outcome: Outcome,
    schedule: Schedule,
    *,
    density: float,
    timelines: tuple[Timeline, ...],
    plan_wall_s: float,
    sim_wall_s: float,
) -> SimulationResult:
    """Return the sums over replicas, with the bounds and the notes of the run."""
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
        tail=find_tail(replicas, outcome.finish_s, workload.output_tokens),
        schedule=schedule,
        workload=workload,
        density=density,
        timelines=timelines,
        plan_wall_s=plan_wall_s,
        sim_wall_s=sim_wall_s,
        busy_s=tuple(float(r.step_s.sum()) for r in replicas),
        transfers=outcome.transfers,
        prefill_replicas=outcome.prefill_replicas,
        notes=(
            *workload.notes,
            *setup.notes,
            *plan.notes,
            *(note for policy in plan.policies for note in policy.notes()),
            *outcome.notes,
        ),
    )
