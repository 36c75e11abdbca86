"""Lower bounds on the makespan of a pool of requests."""

import math
from dataclasses import dataclass

import numpy as np

from bssim.cost_models.step_cost import CostModel, DecodeLimits, OverlapModel, StepWork
from bssim.cost_models.step_floors import StepFloors, StepLimits
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
    step_count_s: float
    """The practical optimum with GEMMs, LM head and fixed costs as fast as in the fewest steps, and
    decode attention as fast as in the best batches."""

    @property
    def tightest_s(self) -> float:
        """The largest of the bounds."""
        return max(
            self.practical_optimum_s,
            self.critical_path_s,
            self.kv_capacity_s,
            self.step_count_s,
        )


def compute_bounds(
    total_work: StepWork,
    cost_model: CostModel,
    overlap: OverlapModel,
    *,
    longest_output_tokens: int,
    kv_token_steps: float,
    kv_capacity_tokens: float,
    limits: StepLimits,
    decodes: DecodeLimits | None = None,
    replicas: int = 1,
) -> Bounds:
    """Return lower bounds on the makespan of a pool that hold for any batching.

    ``total_work`` holds scalars: the least work of all replicas, with maximal cache hits.
    ``longest_output_tokens`` is the largest number of tokens that one request generates, each in
    its own step. ``kv_token_steps`` sums the KV tokens that requests must hold over the steps that
    sample their tokens (shared tokens count once if they can be shared). ``kv_capacity_tokens`` and
    ``limits`` are those of one replica, as are ``decodes``: without them, decode attention reads at
    the best share of the bandwidth. Raises InputError unless capacity and replicas are positive.

    `step_count_s` relies on properties of every overlap model f: it is convex, homogeneous of
    degree one and non-decreasing in every resource, so f(sum of costs) <= sum of f(cost). At least
    N steps sample a token: N is at least the longest output, the KV token-steps divided by the
    capacity, and the sampled tokens divided by the sequence slots. `StepFloors` gives the least
    seconds of each resource in N steps or more, and those of decode attention in any batches.
    """
    if kv_capacity_tokens <= 0 or replicas < 1:
        raise InputError(
            "bounds",
            f"kv_capacity_tokens {kv_capacity_tokens} and replicas {replicas}",
            "both positive",
        )
    floors = StepFloors(cost_model, limits)
    ideal = cost_model.ideal_cost(total_work)
    step_s = float(overlap.step_seconds(floors.step_cost))
    kv_steps = kv_token_steps / kv_capacity_tokens
    slots_steps = float(total_work.sampled_tokens) / limits.max_num_seqs
    all_steps = max(longest_output_tokens, _whole(kv_steps), _whole(slots_steps))
    least = floors.least_cost(total_work, all_steps, decodes)
    return Bounds(
        ideal_s=float(np.maximum(ideal.compute_s, ideal.memory_s)) / replicas,
        practical_optimum_s=float(overlap.step_seconds(ideal)) / replicas,
        critical_path_s=longest_output_tokens * step_s,
        kv_capacity_s=_whole(kv_steps / replicas) * step_s,
        step_count_s=float(overlap.step_seconds(least)) / replicas,
    )


def _whole(steps: float) -> int:
    """Return the least whole number of steps."""
    return math.ceil(steps - 1e-9 * max(steps, 1.0))
