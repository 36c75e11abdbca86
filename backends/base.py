"""The backend interface and the result of a replay."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bssim.backends.step_work import step_work
from bssim.cost_models.step_cost import StepWork
from bssim.errors import InputError
from bssim.sim.engine import AdmissionPolicy, EngineConfig
from bssim.sim.workload import Workload

Row = dict[str, Any]


class ReplayError(InputError):
    """A replay ended early. The message gives the cause and the file with the measured rows."""


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """A request as an engine receives it."""

    request_id: str
    prompt: list[int]
    output_tokens: int
    """Tokens to generate; in a natural replay, the maximum."""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """What an engine reports about a finished request."""

    request_id: str
    output_tokens: int
    cached_tokens: int
    """Prompt tokens found in the cache at first admission, as the engine reports them."""


class Session(Protocol):
    """A running engine: requests go in, steps come out."""

    engine: EngineConfig
    """The settings that the engine reports after start-up."""
    environment: dict[str, Any]
    """engine, engine_version, device, driver, dtype, ... of this machine."""

    def reset(
        self, policy: AdmissionPolicy | None = None, index: Mapping[str, int] | None = None
    ) -> None:
        """Empty the prefix cache. No request may be running.

        ``policy`` replaces the engine's own queue for all requests added from now on. ``index``
        maps every request id to the policy's request number.
        """

    def add(self, request: ReplayRequest) -> None:
        """Queue a request behind all earlier ones."""

    @property
    def unfinished(self) -> bool:
        """Whether any request is queued, running or in flight."""

    def step(self) -> list[FinishedRequest]:
        """Run one step of the engine and return the requests that it finished."""

    def take_rows(self) -> list[Row]:
        """Return the steps completed since the last call, as ``--steps`` rows with ``seconds``."""


class Backend(Protocol):
    """A real engine that can serve a pool."""

    @property
    def name(self) -> str:
        """The name on the command line: ``vllm``."""

    def open(self, workload: Workload) -> Session:
        """Start the engine for a pool. Raises InputError if a request of the pool cannot fit."""

    def prompts(self, workload: Workload) -> Iterable[list[int]]:
        """Return the token ids of every prompt, in pool order, for this backend's model."""


@dataclass(frozen=True, eq=False)
class ReplayResult:
    """One schedule on one engine, measured."""

    workload: str
    workload_digest: str
    scheduler: str
    num_requests: int
    """Requests of the schedule. If `requests` has fewer rows, the replay is partial."""
    engine: EngineConfig
    environment: dict[str, Any]
    steps: list[Row]
    """``--steps`` rows with ``seconds``, ``replica`` and ``segment``."""
    requests: list[Row]
    """request_id, prompt_tokens, output_tokens, cached_tokens, finish_s, replica, segment."""
    error: str = ""
    """Why a partial replay ended."""
    notes: tuple[str, ...] = field(default=())

    @property
    def complete(self) -> bool:
        """Whether every request of the schedule finished."""
        return len(self.requests) == self.num_requests

    @property
    def segments(self) -> int:
        """Number of runs that the replay took: more than 1 after ``--resume``."""
        return 1 + max((int(row["segment"]) for row in self.steps), default=0)

    @property
    def wall_s(self) -> float:
        """Seconds of the slowest replica, summed over its steps."""
        seconds: dict[int, float] = {}
        for row in self.steps:
            seconds[row["replica"]] = seconds.get(row["replica"], 0.0) + row["seconds"]
        return max(seconds.values(), default=0.0)

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens of the finished requests."""
        return sum(int(row["prompt_tokens"]) for row in self.requests)

    @property
    def output_tokens(self) -> int:
        """Generated tokens of the finished requests."""
        return sum(int(row["output_tokens"]) for row in self.requests)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens of finished requests that were in the cache at first admission."""
        return sum(int(row["cached_tokens"]) for row in self.requests)

    @property
    def preemptions(self) -> int:
        """Preemptions in all steps."""
        return sum(len(row["preempted"]) for row in self.steps)

    @property
    def throughput_tok_s(self) -> float:
        """(prompt + output tokens) / `wall_s`."""
        return (self.prompt_tokens + self.output_tokens) / self.wall_s

    @property
    def step_s(self) -> npt.NDArray[np.float64]:
        """Measured seconds of each step, shape (steps,)."""
        return np.array([row["seconds"] for row in self.steps], dtype=np.float64)

    def work(self) -> StepWork:
        """Return what each step computed, fields of shape (steps,).

        Raises InputError for a partial replay, because only finished requests have a known length.
        """
        if not self.complete:
            raise InputError.saying(
                f"replay of {self.workload}",
                f"{len(self.requests)} of {self.num_requests} requests are finished",
                "a complete replay (--resume)",
            )
        return step_work(self.steps, {r["request_id"]: r["prompt_tokens"] for r in self.requests})

    def totals(self) -> Row:
        """Return the totals."""
        return {
            "complete": self.complete,
            "segments": self.segments,
            "requests": len(self.requests),
            "steps": len(self.steps),
            "wall_s": self.wall_s,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "preemptions": self.preemptions,
            "throughput_tok_s": self.throughput_tok_s if self.wall_s else 0.0,
        }
