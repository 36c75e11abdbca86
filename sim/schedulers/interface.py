"""What a scheduler is: it plans once, and its policy answers the engine at run time.

The split is vLLM's own idea turned around: the engine owns budgets, memory and preemption; the
policy owns only *who is next* and, if it wants to, *how many prompt tokens* a step may compute.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from bssim.cost_models.step_cost import CostModel, OverlapModel
from bssim.sim.engine.config import EngineConfig
from bssim.sim.lengths.estimators import OutputEstimator
from bssim.sim.workload.workload import Workload

UNLIMITED = 1 << 60
"""A token limit that is none."""


class EngineView(Protocol):
    """What a policy may read of the engine; true when `AdmissionPolicy.begin_step` is called."""

    step: int
    """Steps scheduled so far."""

    @property
    def decodes(self) -> int:
        """Requests that decode in this step."""

    @property
    def decode_context_tokens(self) -> int:
        """KV tokens they read."""

    def cached_prefix_tokens(self, request: int) -> int:
        """Tokens of the request's prompt that the cache holds now."""

    def generated_tokens(self, request: int) -> int:
        """Tokens a running or preempted request has generated so far."""


class AdmissionPolicy(ABC):
    """Decides, at run time, which waiting request is admitted next; one per replica.

    A policy must say who is next (`peek`), and it must take note when that request leaves the
    waiting ones (`admitted`) or returns to them (`preempted`). All else has a default.
    """

    num_waiting: int
    """Requests not running: never admitted, or preempted."""
    paced: ClassVar[bool] = False
    """Does `token_limit` ever limit a prefill? If not, the engine does not ask."""
    waits_for_finish: ClassVar[bool] = False
    """True if, once it offers nothing or is blocked, only a finish can change its mind: the
    engine may then advance many steps at once."""

    @property
    def wake_step(self) -> int:
        """The step for which `begin_step` must be called even if nothing can be admitted.

        `UNLIMITED`: none. Steps in which nothing could be admitted may pass without `begin_step`.
        """
        return UNLIMITED

    def begin_step(self, engine: EngineView) -> None:  # noqa: B027 -- a default, as are those below
        """Start a step; the engine has not scheduled anything yet."""

    @abstractmethod
    def peek(self) -> int:
        """Return the request to admit next, or -1 to admit nothing more in this step."""

    def token_limit(self, request: int) -> int:
        """Return how many prompt tokens the request may compute now (0: not in this step)."""
        return UNLIMITED

    def blocked(self, request: int) -> bool:
        """Learn that `request` from `peek` has no room; return True to offer another one."""
        return False

    @abstractmethod
    def admitted(self, request: int, cached_tokens: int) -> None:
        """Learn that `request` was taken from the waiting ones."""

    def prefilled(self, request: int, tokens: int) -> None:  # noqa: B027
        """Learn that a chunk of `tokens` prompt tokens was scheduled (if `paced`)."""

    def finished(self, request: int) -> None:  # noqa: B027
        """Learn that a running request has its last token."""

    @abstractmethod
    def preempted(self, request: int) -> None:
        """Take back a running request; it waits again."""

    def notes(self) -> tuple[str, ...]:
        """Return what is worth reporting after the run."""
        return ()


@dataclass(frozen=True, eq=False)
class PlanContext:
    """All that a scheduler may know when it plans."""

    workload: Workload
    """The pool; `workload.output_tokens` is for the estimator only."""
    estimator: OutputEstimator
    engine: EngineConfig
    cost_model: CostModel
    overlap: OverlapModel
    kv_capacity_tokens: int
    """KV tokens of one replica."""
    replicas: int
    rng: np.random.Generator


@dataclass(frozen=True, eq=False)
class Plan:
    """One policy per replica, and what the planner wants reported."""

    policies: tuple[AdmissionPolicy, ...]
    estimated_output_tokens: npt.NDArray[np.float64]
    """Shape (n,): what the scheduler believes of each request."""
    notes: tuple[str, ...] = field(default=())


class Scheduler(Protocol):
    """Plans a pool; stateless, so one object serves many simulations."""

    @property
    def name(self) -> str:
        """As on the command line."""

    def plan(self, context: PlanContext) -> Plan:
        """Return the policies for `context.replicas` replicas."""
