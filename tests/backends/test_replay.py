"""Replays through a backend that is the simulator itself, so that bad days can be had at will."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssim.backends import FinishedRequest, ReplayRequest, Row, read_replay, replay
from bssim.backends.base import ReplayError
from bssim.errors import InputError
from bssim.sim.engine import EngineConfig, load_preset
from bssim.sim.schedule import Schedule
from bssim.sim.workload import Workload
from tests.conformance.compare import simulated_rows, submitted
from tests.conformance.pools import grown

POOL = grown([(0, 40), (1, 24)], [(k % 3, 5 + k, 3 + k % 7, 0) for k in range(12)])
KNOBS = {"num_gpu_blocks": 30, "max_num_batched_tokens": 64, "max_num_seqs": 4}


class SimulatedSession:
    """Steps of the simulator, for the requests that were added, in their order."""

    def __init__(self, workload: Workload, fail_at: int | None, error: BaseException) -> None:
        self.engine: EngineConfig = replace(load_preset("vllm"), **KNOBS)
        self.environment: dict[str, Any] = {"engine": "simulated"}
        self._workload = workload
        self._fail_at, self._error = fail_at, error
        self._added: list[str] = []
        self._rows: list[Row] = []
        self._done: list[Row] = []

    def reset(self, policy: object = None, index: object = None) -> None:
        assert not self.unfinished

    def add(self, request: ReplayRequest) -> None:
        self._added.append(request.request_id)

    @property
    def unfinished(self) -> bool:
        self._start()
        return bool(self._rows)

    def _start(self) -> None:
        if self._added:
            ids = [self._workload.request_id(i) for i in range(len(self._workload))]
            chosen = np.array([ids.index(name) for name in self._added])
            part = replace(
                self._workload,
                prompt_tokens=self._workload.prompt_tokens[chosen],
                output_tokens=self._workload.output_tokens[chosen],
                node=self._workload.node[chosen],
                source=self._workload.source[chosen],
                priority=None,
                request_ids=list(self._added),
            )
            self._rows = simulated_rows(part, KNOBS, submitted(part, KNOBS))
            self._added = []

    def step(self) -> list[FinishedRequest]:
        if self._fail_at is not None and len(self._done) == self._fail_at:
            raise self._error
        row = self._rows.pop(0)
        self._done.append({**row, "seconds": 0.5})
        return [FinishedRequest(name, 3, 0) for name in row["finished"]]

    def take_rows(self) -> list[Row]:
        rows, self._taken = self._done[getattr(self, "_taken", 0) :], len(self._done)
        return rows


class SimulatedBackend:
    name = "simulated"

    def __init__(self, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.fail_at, self.error = fail_at, error or RuntimeError("CUDA out of memory\nmore")

    def open(self, workload: Workload) -> SimulatedSession:
        return SimulatedSession(workload, self.fail_at, self.error)

    def prompts(self, workload: Workload) -> Iterable[list[int]]:
        return [[] for _ in range(len(workload))]


def schedule(workload: Workload = POOL, replicas: int = 1) -> Schedule:
    n = len(workload)
    return Schedule(
        workload=workload.name,
        workload_digest=workload.digest(),
        scheduler="fcfs",
        order=np.arange(n),
        replica=np.arange(n, dtype=np.int32) % replicas,
        estimated_output_tokens=np.ones(n),
    )


def test_every_step_and_request_is_kept(tmp_path: Path):
    out = tmp_path / "replay.json"
    seen: list[tuple[int, int]] = []
    result = replay(
        SimulatedBackend(), POOL, schedule(), out, progress=lambda a, b: seen.append((a, b))
    )
    assert result.complete
    assert not result.error
    expected = simulated_rows(POOL, KNOBS, submitted(POOL, KNOBS))
    assert [row["scheduled"] for row in result.steps] == [row["scheduled"] for row in expected]
    assert result.wall_s == pytest.approx(0.5 * len(expected))
    assert seen[-1] == (12, 12)
    totals = json.loads(out.read_text())["totals"]
    assert totals["requests"] == 12
    assert totals["prompt_tokens"] == int(POOL.prompt_tokens.sum())
    again = read_replay(out)
    assert (again.steps, again.requests, again.engine) == (
        result.steps,
        result.requests,
        result.engine,
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [(None, "RuntimeError: CUDA out of memory after"), (KeyboardInterrupt(), "interrupted after")],
    ids=["out of memory", "interrupt"],
)
def test_rows_survive_a_dying_engine_and_resume_serves_the_rest(
    tmp_path: Path, error: BaseException | None, words: str
):
    out = tmp_path / "replay.json"
    with pytest.raises(ReplayError, match=words):
        replay(SimulatedBackend(8, error), POOL, schedule(), out)
    partial = read_replay(out)
    assert len(partial.steps) == 8
    assert 0 < len(partial.requests) < 12
    assert not partial.complete
    assert partial.error
    with pytest.raises(InputError, match="expected a complete replay"):
        partial.work()

    result = replay(SimulatedBackend(), POOL, schedule(), out, resume=True)
    assert result.complete
    assert result.segments == 2
    assert {row["request_id"] for row in result.requests} == {f"r{i}" for i in range(12)}
    assert result.steps[:8] == partial.steps
    # the interrupted ones are prefilled again: their work shows in the second segment
    work = result.work()
    assert float(np.sum(work.sampled_tokens)) > float(POOL.output_tokens.sum())


def test_resume_goes_on_after_a_line_cut_short(tmp_path: Path):
    out = tmp_path / "replay.json"
    with pytest.raises(ReplayError):
        replay(SimulatedBackend(8), POOL, schedule(), out)
    steps = out.with_suffix(".steps.jsonl")
    steps.write_text(steps.read_text()[:-20])
    assert len(read_replay(out).steps) == 7
    assert replay(SimulatedBackend(), POOL, schedule(), out, resume=True).complete


def test_replicas_are_served_one_after_another(tmp_path: Path):
    result = replay(SimulatedBackend(), POOL, schedule(replicas=2), tmp_path / "r.json")
    steps = [sum(row["replica"] == k for row in result.steps) for k in (0, 1)]
    assert result.complete
    assert result.wall_s == pytest.approx(0.5 * max(steps))


def test_a_schedule_of_another_workload_is_refused(tmp_path: Path):
    other = grown([], [(0, 9, 3, 0)] * 12, name="other")
    with pytest.raises(InputError, match="schedule: made for workload 'other'"):
        replay(SimulatedBackend(), POOL, schedule(other), tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


def test_an_older_result_is_not_overwritten_nor_mixed_with(tmp_path: Path):
    out = tmp_path / "r.json"
    replay(SimulatedBackend(), POOL, schedule(), out)
    with pytest.raises(InputError, match="exists; expected a new file"):
        replay(SimulatedBackend(), POOL, schedule(), out)
    other = replace(schedule(), scheduler="dfs")
    with pytest.raises(InputError, match="scheduler 'fcfs' was being replayed; found 'dfs'"):
        replay(SimulatedBackend(), POOL, other, out, resume=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected a replay to read"),
        ("{", "not JSON"),
        ("[]", "no field 'workload'"),
        ("{}", "no field 'workload'"),
    ],
)
def test_what_is_no_replay_is_named(tmp_path: Path, text: str | None, message: str):
    path = tmp_path / "r.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_replay(path)


def test_a_damaged_journal_is_named_with_its_line(tmp_path: Path):
    out = tmp_path / "r.json"
    replay(SimulatedBackend(), POOL, schedule(), out)
    journal = out.with_suffix(".requests.jsonl")
    lines = journal.read_text().splitlines()
    lines[1] = lines[1][:10]
    journal.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"requests\.jsonl:2: not JSON"):
        read_replay(out)
