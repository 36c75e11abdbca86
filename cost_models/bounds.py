"""Lower bounds on the makespan of a pool of requests."""

import math
from dataclasses import dataclass

import numpy as np

from bssim.cost_models.step_cost import CostModel, OverlapModel, StepCost, StepWork
from bssim.errors import InputError


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower bounds in seconds; no schedule on the same engine and GPUs is faster than any."""

    ideal_s: float
    """max(Tc, Tm): perfect overlap."""
    practical_optimum_s: float
    """The engine's overlap model applied to the pool's whole compute and memory seconds."""
    critical_path_s: float
    """Steps of the longest request times the fastest possible step."""
    kv_capacity_s: float
    """Steps that KV capacity forces (KV token-steps / capacity) times the fastest step."""
    weight_load_s: float
    """The practical optimum with what the fewest possible steps pay whatever they compute."""

    @property
    def tightest_s(self) -> float:
        """The largest of the bounds."""
        return max(
            self.practical_optimum_s,
            self.critical_path_s,
            self.kv_capacity_s,
            self.weight_load_s,
        )


def compute_bounds(
    total_work: StepWork,
    cost_model: CostModel,
    overlap: OverlapModel,
    *,
    longest_output_tokens: int,
    kv_token_steps: float,
    kv_capacity_tokens: float,
    replicas: int = 1,
) -> Bounds:
    """Return lower bounds on the makespan of a pool, whatever its batching.

    ``total_work`` holds scalars: what must be computed at least (maximal hits taken out) over all
    replicas. ``longest_output_tokens`` is the most tokens one request generates, each in its own
    step. ``kv_token_steps`` sums, over the decode steps, the KV tokens that a request must hold
    in them (shared tokens once, if they can be shared); ``kv_capacity_tokens`` is the cache of one
    replica. Raises InputError unless capacity and replicas are positive.

    For `weight_load_s`, overlap models are taken for what they are: convex, homogeneous of degree
    one and non-decreasing in every resource, so that f(sum of costs) <= sum of f(cost). At least N
    steps sample a token: as many as the longest output has, and as many as the KV token-steps fill.
    Each of them moves the weights beside its KV and pays the fixed seconds, hence over all steps
    bandwidth >= N x weights + KV, fixed >= N x fixed, and compute, memory and communication are at
    least those of the work and those of N least steps.
    """
    if kv_capacity_tokens <= 0 or replicas < 1:
        raise InputError(
            "bounds",
            f"kv_capacity_tokens {kv_capacity_tokens} and replicas {replicas}",
            "both positive",
        )
    ideal = cost_model.ideal_cost(total_work)
    step = least_step_cost(cost_model)
    step_s = float(overlap.step_seconds(step))
    kv_steps = math.ceil(kv_token_steps / (kv_capacity_tokens * replicas) - 1e-9)
    all_steps = max(longest_output_tokens, math.ceil(kv_token_steps / kv_capacity_tokens - 1e-9))
    loaded = with_step_floors(ideal, step, all_steps)
    return Bounds(
        ideal_s=float(np.maximum(ideal.compute_s, ideal.memory_s)) / replicas,
        practical_optimum_s=float(overlap.step_seconds(ideal)) / replicas,
        critical_path_s=longest_output_tokens * step_s,
        kv_capacity_s=kv_steps * step_s,
        weight_load_s=float(overlap.step_seconds(loaded)) / replicas,
    )


def with_step_floors(ideal: StepCost, step: StepCost, steps: int) -> StepCost:
    """Return the least summed cost of ``ideal`` work in ``steps`` steps of at least ``step``."""
    return StepCost(
        compute_s=np.maximum(ideal.compute_s, steps * step.compute_s),
        memory_s=np.maximum(ideal.memory_s, steps * step.memory_s),
        communication_s=np.maximum(ideal.communication_s, steps * step.communication_s),
        fixed_s=np.maximum(ideal.fixed_s, steps * step.fixed_s),
        bandwidth_s=ideal.bandwidth_s + steps * step.bandwidth_s,
        host_s=np.maximum(ideal.host_s, steps * step.host_s),
    )


def least_step_cost(cost_model: CostModel) -> StepCost:
    """Return a cost that no step which samples a token can beat in any resource.

    Such a step runs at least one row through the GEMMs and the LM head, hence loads their weights.
    Efficiency may grow faster than the work, so that two rows take less than one; the least over
    row counts is therefore taken, for each resource alone (overlap models never decrease).
    """
    rows = np.concatenate([np.arange(1.0, 1025.0), 2.0 ** np.arange(11, 18)])
    # Bare rows: no attention, so that nothing but dense work is priced.
    dense = cost_model.step_cost(StepWork(prefill_tokens=rows))
    head = cost_model.step_cost(StepWork(prefill_tokens=1.0, sampled_tokens=rows))
    alone = cost_model.step_cost(StepWork(prefill_tokens=1.0))

    def least(field: str) -> float:
        """Return the least seconds of GEMMs plus the least that the LM head adds."""
        added = np.asarray(getattr(head, field)) - np.asarray(getattr(alone, field))
        return float(np.min(getattr(dense, field)) + np.min(added))

    return StepCost(
        compute_s=least("compute_s"),
        memory_s=least("memory_s"),
        communication_s=least("communication_s"),
        fixed_s=least("fixed_s"),
        bandwidth_s=least("bandwidth_s"),
        host_s=least("host_s"),
    )
