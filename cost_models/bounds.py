"""Lower bounds on the makespan of a pool of requests."""

import math
from dataclasses import dataclass

import numpy as np

from bssim.cost_models.step_cost import CostModel, OverlapModel, StepCost, StepWork
from bssim.errors import InputError


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower bounds in seconds: no schedule on the same engine and GPUs is faster."""

    ideal_s: float
    """max(Tc, Tm): perfect overlap."""
    practical_optimum_s: float
    """The engine's overlap model applied to the pool's whole compute and memory seconds."""
    critical_path_s: float
    """Steps of the longest request times the fastest possible step."""
    kv_capacity_s: float
    """Steps that the KV capacity requires (KV token-steps / capacity) times the fastest step."""
    weight_load_s: float
    """The practical optimum plus the weight loads and fixed costs of the fewest possible steps."""

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
    """Return lower bounds on the makespan of a pool that hold for any batching.

    ``total_work`` holds scalars: the least work of all replicas, with maximal cache hits.
    ``longest_output_tokens`` is the largest number of tokens that one request generates, each in
    its own step. ``kv_token_steps`` sums the KV tokens that requests must hold over their decode
    steps (shared tokens count once if they can be shared). ``kv_capacity_tokens`` is the cache of
    one replica. Raises InputError unless capacity and replicas are positive.

    `weight_load_s` relies on properties of every overlap model f: it is convex, homogeneous of
    degree one and non-decreasing in every resource, so f(sum of costs) <= sum of f(cost). At least
    N steps sample a token: N is at least the longest output, and at least the KV token-steps
    divided by the capacity. Each of these steps reads the weights as well as its KV and pays the
    fixed seconds. Over all steps, therefore, bandwidth >= N x weights + KV and fixed >= N x fixed.
    Compute, memory and communication are at least those of the work, and at least those of N of
    the cheapest steps.
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
    """Return a lower bound, per resource, on the cost of a step that samples a token.

    Such a step passes at least one row through the GEMMs and the LM head, so it loads their
    weights. Efficiency may grow faster than the work, so two rows can take less time than one.
    Each resource therefore takes its own minimum over row counts.
    """
    rows = np.concatenate([np.arange(1.0, 1025.0), 2.0 ** np.arange(11, 18)])
    # Rows without attention, so that only dense work is priced.
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
