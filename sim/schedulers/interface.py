"""What a scheduler is: it plans a pool once, and gives each replica a policy for its engine.

The engine asks that policy at run time: see `AdmissionPolicy` in `sim/engine/policy.py`.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bssim.cost_models.llm import AttentionGroup
from bssim.cost_models.step_cost import CostModel, OverlapModel
from bssim.sim.engine import AdmissionPolicy, EngineConfig
from bssim.sim.lengths import OutputEstimator
from bssim.sim.workload import Workload


@dataclass(frozen=True, eq=False)
class PlanContext:
    """Everything that a scheduler may know when it plans."""

    workload: Workload
    """The pool. Only the estimator may read `workload.output_tokens`."""
    estimator: OutputEstimator
    engine: EngineConfig
    cost_model: CostModel
    overlap: OverlapModel
    kv_capacity_tokens: int
    """KV tokens of one replica."""
    replicas: int
    rng: np.random.Generator
    windowed: AttentionGroup | None = None
    """Layers of the model with a window."""


@dataclass(frozen=True, eq=False)
class Plan:
    """One policy per replica, and notes to report."""

    policies: tuple[AdmissionPolicy, ...]
    estimated_output_tokens: npt.NDArray[np.float64]
    """Shape (n,): the estimated output length of each request."""
    notes: tuple[str, ...] = field(default=())
    orders: tuple[npt.NDArray[np.int64], ...] = ()
    """Each replica's order of admission if it is fixed before the run; else empty."""


class Scheduler(Protocol):
    """Plans a pool. Stateless, so one object can serve many simulations."""

    @property
    def name(self) -> str:
        """The name on the command line."""

    def plan(self, context: PlanContext) -> Plan:
        """Return the policies for `context.replicas` replicas."""
