"""How well a run blends: how far its ratio of compute to memory varies over time."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bssim.cost_models.step_cost import OverlapModel, StepCost

NEAR = 0.2
"""Relative distance from the whole run's ratio that still counts as near."""
FULL = 0.98
"""Share of the KV cache in use from which nothing can be admitted."""


@dataclass(frozen=True, slots=True)
class Blending:
    """Shares of the run's simulated time."""

    lost: float
    """Time that the same work would save if every step had the same ratio."""
    near: float
    """The share in which compute over memory seconds is within `NEAR` of the whole run's."""
    full: float
    """The share in which KV memory is full."""
    drain: float
    """The share after the last prompt token, when requests only decode."""

    def in_words(self) -> str:
        """Return all but `lost`, for a note."""
        return (
            f"{self.near:.0%} of the time within {NEAR:.0%} of the run's ratio, {self.full:.0%} "
            f"with KV memory full, {self.drain:.0%} after the last prompt token"
        )


def blending(timeline: pd.DataFrame, overlap: OverlapModel, kv_capacity: float) -> Blending:
    """Measure one run of an engine with ``overlap`` from its downsampled timeline.

    ``kv_capacity``: tokens that fit the KV cache of a replica.

    If there are several replicas, the first is measured. `lost` is exact: overlap models are convex
    and homogeneous, so the sum of f over steps is at least f of the sums, with equality when all
    steps have one ratio. The others see means over 1/600 of the run.
    """
    slices = timeline[timeline["replica"] == 0]
    steps = slices["steps"].to_numpy()
    seconds = slices["step_s"].to_numpy() * steps

    def total(column: str) -> float:
        return float((slices[column] * steps).sum())

    together = overlap.step_seconds(
        StepCost(
            compute_s=total("compute_s"),
            memory_s=total("memory_s"),
            communication_s=total("communication_s"),
            fixed_s=total("fixed_s"),
            bandwidth_s=total("bandwidth_s"),
            host_s=total("host_s"),
        )
    )
    ratio = total("compute_s") / total("memory_s")
    balanced = ratio * slices["memory_s"].to_numpy()
    near = np.abs(slices["compute_s"].to_numpy() - balanced) <= NEAR * balanced
    held = slices["kv_tokens"].to_numpy() / kv_capacity
    prompts = np.flatnonzero(slices["prefill_tokens"].to_numpy() > 0)
    last = int(prompts[-1]) + 1 if len(prompts) else 0
    whole = seconds.sum()
    return Blending(
        lost=1.0 - float(together) / float(whole),
        near=float(seconds[near].sum() / whole),
        full=float(seconds[held >= FULL].sum() / whole),
        drain=float(seconds[last:].sum() / whole),
    )
