"""A replica: the Ray actor that owns one vLLM engine.

Its calls are short and run one after another, so the driver can give it requests, and take back
those that wait, between two calls of `Replica.work`.
"""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bssim import __version__
from bssim.backends.vllm import Answer, OpenAISession, Prompt, parse_arguments
from bssim.errors import InputError
from bssim.experiments.batch.run_lines import Line
from bssim.experiments.batch.run_loop import RunLoop, RunSettings
from bssim.experiments.batch.run_pool import Pool, rendered
from bssim.experiments.batch.run_report import RunReport, RunStatus
from bssim.experiments.batch.run_results import FinishedRows, Row

WORK_S = 0.2
"""Seconds of one call of `Replica.work`."""


@dataclass(frozen=True, slots=True)
class Started:
    """Where an engine is ready."""

    host: str
    process: int


@dataclass(frozen=True, slots=True)
class Offer:
    """What a replica gives back, in rows of the pool."""

    rows: list[int]
    """Requests that the engine does not know yet."""
    running: dict[int, int]
    """Tokens that each admitted request has generated."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a replica did in one call of `Replica.work`, and its state at the end."""

    answers: list[Answer]
    said: list[str]
    """Events."""
    status: RunStatus | None
    """None before the first step."""
    report: RunReport
    """Of all steps so far."""
    num_waiting: int
    """Requests that were never admitted."""
    unfinished: bool
    """Whether any request runs or waits."""


class Replica:
    """One engine. Runs as a Ray actor, so nothing slow is imported before `start`."""

    def __init__(self, scheduler: str, seed: int) -> None:
        self._scheduler, self._seed = scheduler, seed

    def start(self, model: str, engine_args: Sequence[str], version: str) -> Started:
        """Start the engine. Raises InputError if it does not start, or if the driver has another
        ``version`` of bssim."""
        if version != __version__:
            raise InputError(
                f"the node {platform.node()}",
                f"bssim {__version__}",
                f"{version}, as on the driver",
            )
        # vLLM would bind the threads of every CPU engine to the same cores.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        self._session = OpenAISession(parse_arguments(model, engine_args))
        return Started(platform.node(), os.getpid())

    def render(self, lines: Sequence[Line]) -> list[tuple[int, Prompt | Answer]]:
        """Turn lines into token ids; see `rendered`."""
        found = list(rendered(self._session, lines))
        for index, prompt in found:
            if isinstance(prompt, Prompt):
                self._session.forget(index)
        return found

    def begin(self, pool: Pool) -> None:
        """Prepare to serve requests of a pool."""
        self._pool, self._offered = pool, set[int]()
        self._finished = FinishedRows()
        self._said: list[str] = []
        self._status: list[RunStatus] = []
        self._report = RunReport("", len(pool.indices), 0)
        settings = RunSettings(
            self._scheduler, self._seed, time.perf_counter, self._said.append, self._status.append
        )
        none = replace(pool, left=[])
        self._loop = RunLoop(settings, self._session, none, self._finished, self._report)

    def take(self, kept: Sequence[int], lines: Sequence[Line], finished: Mapping[int, Row]) -> None:
        """Serve ``kept`` rows of the last `Offer` and other lines. Drops the rest of the offer.

        ``finished``: `FinishedRows.rows` of all replicas since the last call.
        """
        for row in self._offered.difference(kept):
            self._session.forget(self._pool.indices[row])
        self._offered.clear()
        for _ in rendered(self._session, lines):
            pass
        self._finished.rows |= finished
        self._loop.take([*kept, *(self._pool.row_of[line.index] for line in lines)])

    def give_back(self) -> Offer:
        """Stop serving what the engine does not know yet."""
        rows = self._loop.give_back()
        self._offered.update(rows)
        return Offer(rows, self._loop.running())

    def work(self) -> Progress:
        """Run steps for `WORK_S` seconds, or until all requests have finished."""
        answers: list[Answer] = []
        self._said.clear()
        end = time.monotonic() + WORK_S
        while self._loop.unfinished and time.monotonic() < end:
            answers += self._loop.step()
            del self._status[:-1]
        return Progress(
            answers=answers,
            said=list(self._said),
            status=self._status[-1] if self._status else None,
            report=self._report,
            num_waiting=self._loop.num_waiting,
            unfinished=self._loop.unfinished,
        )
