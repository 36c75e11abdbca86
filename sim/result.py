"""The result of a simulation. Statistics are computed here, not in the engine's loop."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bssim.cost_models.bounds import Bounds
from bssim.cost_models.step_cost import StepCost, StepWork
from bssim.sim.schedule import Schedule
from bssim.sim.workload import Workload
from bssim.wording import counted

NOTED_TAIL = 0.1
"""Share of the makespan from which a tail is worth a note."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """Every step of one replica; columns have shape (steps,) unless they say otherwise."""

    work: StepWork
    cost: StepCost
    step_s: npt.NDArray[np.float64]
    """Wall seconds of each step, overlap applied."""
    kv_tokens: npt.NDArray[np.int64]
    """KV tokens (block-rounded) held by running requests after scheduling."""
    running: npt.NDArray[np.int64]
    """Requests running after scheduling."""
    start_s: npt.NDArray[np.float64] | None = None
    """Start of each step; None: each step starts when the previous one ends."""
    admitted: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Rows of the workload by first admission, shape (admissions,)."""
    admission_step: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The step of each first admission, shape (admissions,)."""
    preemption_step: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The step of each preemption, shape (preemptions,)."""

    @classmethod
    def joined(cls, pieces: Sequence["Timeline"]) -> "Timeline":
        """Join the pieces, in order, to one timeline."""

        def column(part: str, field: str) -> npt.NDArray[np.float64]:
            values = [
                np.broadcast_to(getattr(getattr(p, part), field), p.step_s.shape) for p in pieces
            ]
            return np.concatenate([np.zeros(0), *values])

        return cls(
            StepWork(**{f.name: column("work", f.name) for f in fields(StepWork)}),
            StepCost(**{f.name: column("cost", f.name) for f in fields(StepCost)}),
            np.concatenate([np.zeros(0), *(p.step_s for p in pieces)]),
            np.concatenate([np.zeros(0, np.int64), *(p.kv_tokens for p in pieces)]),
            np.concatenate([np.zeros(0, np.int64), *(p.running for p in pieces)]),
        )


class KVTransfer(NamedTuple):
    """The transfer of one prompt's KV from a prefill replica to a decode replica."""

    request: int
    """Row of the workload."""
    sender: int
    """Replica numbers: prefill replicas first, then decode replicas."""
    receiver: int
    tokens: int
    """Prompt tokens that the receiver did not have in its cache."""
    prompt_s: float
    """Time at which the prompt was computed."""
    start_s: float
    end_s: float


class Tail(NamedTuple):
    """The end of a run in which no request waits and few are left; see `bssim.sim.tail`."""

    start_s: float
    """The makespan if there is no tail."""
    requests: int
    """Requests that finish in it."""
    tokens: int
    """Output tokens that it generates."""


class Outcome(NamedTuple):
    """The outcome of a run, in addition to the records of its replicas."""

    makespan_s: float
    finish_s: npt.NDArray[np.float64]
    """Shape (n,): when each request finished."""
    transfers: tuple[KVTransfer, ...] = ()
    prefill_replicas: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SimulationResult:
    """One workload with one scheduler on one engine. Seconds are simulated unless named wall."""

    num_requests: int
    prompt_tokens: int
    output_tokens: int
    makespan_s: float
    compute_s: float
    """Sum over steps (and replicas) of StepCost.compute_s; likewise the next three."""
    memory_s: float
    communication_s: float
    fixed_s: float
    steps: int
    cached_tokens: int
    """Prompt tokens found in the KV cache at first admission."""
    max_cached_tokens: int
    """The hits of the best order with an unlimited cache."""
    preemptions: int
    recomputed_tokens: int
    """Tokens computed again after preemptions."""
    peak_kv_tokens: int
    bounds: Bounds
    finish_s: npt.NDArray[np.float64]
    """Shape (n,): when each request finished."""
    tail: Tail
    schedule: Schedule
    workload: Workload
    """The pool that ran, without dropped oversize requests."""
    density: float
    """Compute density of the pool with maximal sharing (paper, section 4)."""
    timelines: tuple[Timeline, ...] = ()
    """One per replica, if requested."""
    busy_s: tuple[float, ...] = ()
    """Seconds that each replica spent in steps."""
    transfers: tuple[KVTransfer, ...] = ()
    """KV transfers of prefill/decode disaggregation, in the order in which they ended."""
    prefill_replicas: int = 0
    """The first replicas, which only prefill while the others only decode; 0: all do both."""
    plan_wall_s: float = 0.0
    sim_wall_s: float = 0.0
    notes: tuple[str, ...] = field(default=())
    """Notes for the user, e.g. what the planner sampled and moved."""

    @property
    def throughput_tok_s(self) -> float:
        """(prompt + output tokens) / makespan, the paper's throughput."""
        return (self.prompt_tokens + self.output_tokens) / self.makespan_s

    @property
    def tail_share(self) -> float:
        """Share of the makespan that the tail takes."""
        return max(0.0, 1 - self.tail.start_s / self.makespan_s)  # sums of seconds are rounded

    @property
    def throughput_without_tail_tok_s(self) -> float:
        """(prompt + output tokens) computed before the tail / its start."""
        tokens = self.prompt_tokens + self.output_tokens - self.tail.tokens
        return tokens / self.tail.start_s

    @property
    def tail_note(self) -> str | None:
        """A note on a tail that takes more than `NOTED_TAIL` of the makespan."""
        if self.tail_share <= NOTED_TAIL:
            return None
        return (
            f"a tail of {counted(self.tail.requests, 'request')} takes {self.tail_share:.0%} of "
            f"the makespan; without it, the rate is {self.throughput_without_tail_tok_s:,.0f} "
            f"tokens/s, not {self.throughput_tok_s:,.0f}"
        )

    @property
    def optimum_tok_s(self) -> float:
        """Throughput of the practical optimum."""
        return (self.prompt_tokens + self.output_tokens) / self.bounds.practical_optimum_s

    @property
    def share_of_optimum(self) -> float:
        """Time of the practical optimum / makespan."""
        return self.bounds.practical_optimum_s / self.makespan_s

    @property
    def share_of_bound(self) -> float:
        """Tightest lower bound / makespan."""
        return self.bounds.tightest_s / self.makespan_s

    @property
    def sharing(self) -> float:
        """Share of prompt tokens that were hits at first admission."""
        return self.cached_tokens / self.prompt_tokens

    @property
    def sharing_max(self) -> float:
        """The largest sharing of any order."""
        return self.max_cached_tokens / self.prompt_tokens
