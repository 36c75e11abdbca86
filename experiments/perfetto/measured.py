"""The trace of a run on a real engine, from the rows that its scheduler recorded.

An engine says which requests each step serves and how long it takes, but not how much of that is
arithmetic and how much is memory traffic. So such a trace has no compute and memory tracks.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bssim.backends import ReplayResult, WorkMeter
from bssim.experiments.perfetto.trace import (
    IntArray,
    StepTrack,
    Trace,
    admitted_by_side,
    compute_side,
)
from bssim.sim.engine import EngineConfig

_COLUMNS = (
    *("decode_requests", "decode_context_tokens", "prefill_requests", "prefill_tokens"),
    *("free_blocks", "running", "preempted"),
)


class StepLog:
    """The steps of one engine, noted one after another."""

    def __init__(self) -> None:
        self._start_s: list[float] = []
        self._step_s: list[float] = []
        self._rows: list[tuple[int, ...]] = []
        self._running = 0
        self._admitted: dict[Any, int] = {}
        """The step of each first admission, by request."""

    def note(self, start_s: float, step_s: float, row: Mapping[str, Any], sums: list[int]) -> None:
        """Note a step: its start and seconds, its ``--steps`` row, and its `WorkMeter.sums`."""
        for request in row["cached"]:
            self._admitted.setdefault(request, len(self._rows))
        self._running += len(row["cached"]) - len(row["preempted"])
        self._start_s.append(start_s)
        self._step_s.append(step_s)
        self._rows.append((*sums[:4], row["free_blocks"], self._running, len(row["preempted"])))
        self._running -= len(row["finished"])

    def restart(self) -> None:
        """Continue with an engine on which no request runs."""
        self._running = 0

    def track(
        self, name: str, engine: EngineConfig, lengths: Mapping[Any, tuple[int, int]]
    ) -> StepTrack:
        """Return the steps as a track. ``lengths``: prompt and output tokens of all requests.

        ``engine`` has the number of KV blocks that the engine reported, one of which it reserves.
        """
        table = np.array(self._rows, np.int64).reshape(-1, len(_COLUMNS))
        columns: dict[str, IntArray] = dict(zip(_COLUMNS, table.T, strict=True))
        start_s, step_s = np.array(self._start_s), np.array(self._step_s)
        blocks = engine.num_gpu_blocks or int(columns["free_blocks"].max(initial=0)) + 1
        sizes = np.array(list(lengths.values()), np.int64).reshape(-1, 2)
        on_compute_side = dict(zip(lengths, compute_side(*sizes.T).tolist(), strict=True))
        known = {r: step for r, step in self._admitted.items() if r in on_compute_side}
        work = {name: columns[name].astype(np.float64) for name in _COLUMNS[:4]}
        return StepTrack(
            name=name,
            start_s=start_s,
            end_s=start_s + step_s,
            prefill_s=np.where(work["prefill_tokens"] > 0, step_s, 0.0),
            decode_s=np.where(work["decode_requests"] > 0, step_s, 0.0),
            **work,
            kv_tokens=(blocks - 1 - columns["free_blocks"]) * engine.block_size,
            running=columns["running"],
            admitted=admitted_by_side(
                np.array(list(known.values()), np.int64),
                np.array([on_compute_side[r] for r in known], np.bool_),
                len(step_s),
            ),
            preempted=columns["preempted"],
            steps=np.ones(len(step_s), np.int64),
        )


def replayed(result: ReplayResult) -> Trace:
    """Return the trace of a complete replay: one replica after another starts at 0.

    A replay that was resumed has one engine after another on each replica, without the time
    between them. Raises InputError like `ReplayResult.work` for a partial replay.
    """
    result.work()
    lengths = {
        row["request_id"]: (int(row["prompt_tokens"]), int(row["output_tokens"]))
        for row in result.requests
    }
    meter = WorkMeter({name: prompt for name, (prompt, _) in lengths.items()})
    logs: dict[int, StepLog] = {}
    clock: dict[int, float] = {}
    part: tuple[int, int] | None = None
    for row in result.steps:
        replica = int(row["replica"])
        log = logs.setdefault(replica, StepLog())
        if part != (part := (replica, int(row["segment"]))):
            meter.restart()
            log.restart()
        start_s = clock.get(replica, 0.0)
        log.note(start_s, row["seconds"], row, meter.sums(row))
        clock[replica] = start_s + row["seconds"]
    several = len(logs) > 1
    return Trace(
        tuple(
            log.track(f"replica {k + 1}" if several else "replica", result.engine, lengths)
            for k, log in sorted(logs.items())
        ),
        facts={
            "workload": result.workload,
            "scheduler": result.scheduler,
            "engine": result.environment,
            "measured": True,
        },
    )
