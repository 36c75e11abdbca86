"""A replica: the Ray actor that owns one vLLM engine. Its methods send results as they come."""

import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bssim import __version__
from bssim.backends.vllm import Answer, OpenAISession, Prompt, parse_arguments
from bssim.errors import InputError
from bssim.experiments.batch.run_lines import Line
from bssim.experiments.batch.run_loop import RunLoop, RunSettings
from bssim.experiments.batch.run_pool import Pool, rendered
from bssim.experiments.batch.run_report import RunReport, RunStatus
from bssim.experiments.batch.run_results import FinishedRows, Row

HEARD_S = 0.5
"""Seconds after which a replica reports even if no request has finished."""


@dataclass(frozen=True, slots=True)
class Started:
    """Where an engine is ready."""

    host: str
    process: int


@dataclass(frozen=True, eq=False)
class Shard:
    """Requests for one replica."""

    pool: Pool
    lines: list[Line]
    """The requests that are left."""
    known: dict[int, Row]
    """The finished requests, see `FinishedRows.rows`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a replica sends while it serves a shard."""

    answers: list[Answer]
    """Finished since the last report."""
    said: list[str] = field(default_factory=list)
    """Events since the last report."""
    status: RunStatus | None = None
    """Of this shard; None before the first step."""
    report: RunReport | None = None
    """Of this shard, so far."""


class Replica:
    """One engine. Runs as a Ray actor, so nothing slow is imported before `start`."""

    def __init__(self, scheduler: str, seed: int) -> None:
        self._scheduler, self._seed = scheduler, seed

    def start(self, model: str, engine_args: Sequence[str], version: str) -> Iterator[Started]:
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
        yield Started(platform.node(), os.getpid())

    def render(self, lines: Sequence[Line]) -> Iterator[list[tuple[int, Prompt | Answer]]]:
        """Turn lines into token ids; see `rendered`."""
        found = list(rendered(self._session, lines))
        for index, prompt in found:
            if isinstance(prompt, Prompt):
                self._session.forget(index)
        yield found

    def serve(self, shard: Shard) -> Iterator[Progress]:
        """Serve a shard as `bssim run` serves a batch on one engine."""
        for _ in rendered(self._session, shard.lines):
            pass
        said: list[str] = []
        status: list[RunStatus] = []
        finished = FinishedRows()
        finished.rows |= shard.known
        report = RunReport("", len(shard.pool.indices), len(shard.known))
        settings = RunSettings(
            self._scheduler, self._seed, time.perf_counter, said.append, status.append
        )
        loop = RunLoop(settings, self._session, shard.pool, finished, report)
        heard = time.monotonic()
        yield Progress([])
        for answers in loop.steps():
            if answers or time.monotonic() > heard + HEARD_S:
                yield Progress(answers, said, status[-1], report)
                said.clear()
                heard = time.monotonic()
            del status[:-1]
        yield Progress([], said, status[-1], report)
