"""Trace files: their format, what they add up to, and what Perfetto's trace processor reads."""

import gzip
import json
import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bssim.backends import ReplayResult
from bssim.experiments.cli import app
from bssim.experiments.perfetto import Trace, replayed, simulated, write_trace
from bssim.experiments.perfetto.trace import compute_side
from bssim.sim.result import SimulationResult
from tests.sim.harness import engine, run, unshared

HERE = Path(__file__).parent
FIELDS = {
    "X": {"ph", "name", "pid", "tid", "ts", "dur", "args"},
    "C": {"ph", "name", "pid", "tid", "ts", "args"},
    "i": {"ph", "s", "name", "pid", "tid", "ts", "args"},
    "M": {"ph", "name", "pid", "tid", "ts", "args"},
}
PROCESSOR = Path(
    os.environ.get("BSSIM_TRACE_PROCESSOR", HERE.parents[1] / "build" / "trace-processor")
)
needs_processor = pytest.mark.skipif(
    not (PROCESSOR / "trace_processor.wasm").is_file() or shutil.which("node") is None,
    reason="needs Node.js and `make trace-processor`",
)
Event = dict[str, Any]


def crowded(**options: Any) -> SimulationResult:
    """Two kinds of requests on a small cache, so that some are preempted."""
    workload = unshared([30, 4] * 12, [2, 20] * 12)
    return run(workload, kv=90, record_timeline=True, **options)


def apart() -> SimulationResult:
    return run(unshared([20, 5] * 10, [1, 9] * 10), disaggregation="2P1D", record_timeline=True)


def read(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


def checked_events(path: Path) -> list[Event]:
    """Return the events of a file that keeps the rules of the format."""
    events: list[Event] = read(path)["traceEvents"]
    ends: dict[tuple[int, int], float] = defaultdict(float)
    counted: dict[tuple[int, str], float] = defaultdict(float)
    named = {(e["name"], e["pid"], e["tid"]) for e in events if e["ph"] == "M"}
    for event in events:
        kind, place = event["ph"], (event["pid"], event["tid"])
        assert set(event) == FIELDS[kind]
        assert event["ts"] >= 0
        assert ("process_name", event["pid"], 0) in named
        if kind == "X":
            assert event["dur"] > 0
            assert round(event["ts"] * 1000) >= round(ends[place] * 1000), "slices overlap"
            ends[place] = event["ts"] + event["dur"]
        if kind in "Xi":
            assert ("thread_name", *place) in named
        if kind == "C":
            series = event["pid"], event["name"]
            assert event["ts"] >= counted[series]
            counted[series] = event["ts"]
            assert event["args"]
            assert all(isinstance(value, int) and value >= 0 for value in event["args"].values())
    return events


def names_of(events: list[Event], kind: str) -> dict[tuple[int, int], str]:
    """Return the names of processes or threads by their numbers."""
    return {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == kind}


def seconds(events: list[Event], name: str, pid: int | None = None) -> float:
    return sum(e["dur"] for e in events if e["name"] == name and pid in (None, e["pid"])) / 1e6


def summed(trace: Trace, column: str) -> float:
    return float(sum(getattr(track, column).sum() for track in trace.replicas))


def written(path: Path, trace: Trace) -> list[Event]:
    write_trace(path, trace)
    return checked_events(path)


def test_a_trace_has_every_step_and_adds_up_to_the_result(tmp_path: Path) -> None:
    result = crowded(dp=2)
    assert result.preemptions
    events = written(tmp_path / "t.json", simulated(result, {"workload": "pool"}))
    assert set(names_of(events, "process_name").values()) == {"replica 1", "replica 2"}
    tracks = {"steps", "prefill", "decode", "compute", "memory", "preemptions"}
    assert set(names_of(events, "thread_name").values()) == tracks
    steps = [e for e in events if e["name"] == "steps"]
    assert len(steps) == result.steps
    for pid, busy_s in enumerate(result.busy_s, start=1):
        assert seconds(events, "steps", pid) == pytest.approx(busy_s, abs=1e-6)
    assert seconds(events, "compute") == pytest.approx(result.compute_s, abs=1e-6)
    assert seconds(events, "memory") == pytest.approx(result.memory_s, abs=1e-6)
    prompts = sum(e["args"]["tokens"] for e in events if e["name"] == "prefill")
    assert prompts == sum(t.work.prefill_tokens.sum() for t in result.timelines)
    preempted = sum(e["args"]["requests"] for e in events if e["ph"] == "i")
    assert preempted == result.preemptions
    most = max(e["args"]["tokens"] for e in events if e["name"] == "KV")
    assert most == result.peak_kv_tokens
    assert read(tmp_path / "t.json")["otherData"]["workload"] == "pool"


def test_admissions_count_each_request_once_on_its_side() -> None:
    result = crowded()
    (track,) = simulated(result, {}).replicas
    # prompts of 30 with 2 outputs are denser than the pool, prompts of 4 with 20 are not
    assert track.admitted.sum(axis=0).tolist() == [12, 12]
    assert track.admitted.sum(axis=1).max() > 1
    assert compute_side(np.array([30, 4]), np.array([2, 20])).tolist() == [True, False]


def test_pools_apart_have_named_replicas_and_transfers(tmp_path: Path) -> None:
    result = apart()
    events = written(tmp_path / "t.json", simulated(result, {}))
    assert list(names_of(events, "process_name").values()) == [
        *("prefill replica 1", "prefill replica 2", "decode replica 1", "KV transfers")
    ]
    sent = [e for e in events if e["name"] == "transfer"]
    assert len(sent) == len(result.transfers) == 10
    assert sum(e["args"]["tokens"] for e in sent) == sum(t.tokens for t in result.transfers)
    assert {e["args"]["to_decode_replica"] for e in sent} == {1}
    busy_s = sum(t.end_s - t.start_s for t in result.transfers)
    assert seconds(events, "transfer") == pytest.approx(busy_s, abs=1e-6)


@pytest.mark.parametrize("split", [False, True])
def test_a_long_run_becomes_slices_of_time_with_the_same_sums(tmp_path: Path, split: bool) -> None:
    result = apart() if split else crowded(dp=2)
    whole = simulated(result, {})
    short = whole.shortened(most=12)
    assert whole.slice_s is None
    assert short.slice_s is not None
    assert sum(len(track.steps) for track in short.replicas) <= 12 + len(short.replicas)
    columns = ("steps", "admitted", "preempted", "prefill_tokens", "decode_requests", "compute_s")
    for column in columns:
        assert summed(short, column) == pytest.approx(summed(whole, column)), column
    for few, all_ in zip(short.replicas, whole.replicas, strict=True):
        assert few.kv_tokens.max() == all_.kv_tokens.max()
        assert few.end_s[-1] == all_.end_s[-1]
    events = written(tmp_path / "t.json", short)
    processes = list(names_of(events, "process_name").values())
    assert all("slices of" in name for name in processes[: len(short.replicas)])
    assert f"{short.slice_s:g} s" in read(tmp_path / "t.json")["otherData"]["rows"]
    assert sum(t.transfers.sum() for t in short.transfers) == len(result.transfers)


def test_a_trace_that_is_short_enough_stays_as_it_is() -> None:
    trace = simulated(crowded(), {})
    assert trace.shortened() is trace


def test_equal_traces_give_equal_bytes_compressed_or_not(tmp_path: Path) -> None:
    names = ("a.json", "b.json", "a.json.gz", "b.json.gz")
    a, b, a_gz, b_gz = (tmp_path / name for name in names)
    for path in (a, b, a_gz, b_gz):
        write_trace(path, simulated(crowded(), {}))
    assert a.read_bytes() == b.read_bytes() == gzip.decompress(a_gz.read_bytes())
    assert a_gz.read_bytes() == b_gz.read_bytes()


def test_a_replay_of_the_simulated_steps_has_the_tracks_of_the_simulation(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    result = crowded(on_step=rows.append)
    workload = result.workload
    requests = [
        {"request_id": workload.request_id(i), "prompt_tokens": int(p), "output_tokens": int(d)}
        for i, (p, d) in enumerate(zip(workload.prompt_tokens, workload.output_tokens, strict=True))
    ]
    step_s = result.timelines[0].step_s
    measured = ReplayResult(
        workload="pool",
        workload_digest=workload.digest(),
        scheduler="fcfs",
        num_requests=len(workload),
        engine=engine(kv=90),
        environment={},
        steps=[
            {**row, "seconds": float(s), "replica": 0, "segment": 0}
            for row, s in zip(rows, step_s, strict=True)
        ],
        requests=requests,
    )
    (got,), (want,) = replayed(measured).replicas, simulated(result, {}).replicas
    for column in ("start_s", "end_s", "prefill_s", "decode_s", "prefill_tokens", "running"):
        assert getattr(got, column) == pytest.approx(getattr(want, column)), column
    for column in ("kv_tokens", "admitted", "preempted", "decode_requests", "steps"):
        assert getattr(got, column).tolist() == getattr(want, column).tolist(), column
    assert got.compute_s is None
    events = written(tmp_path / "t.json.gz", replayed(measured))
    assert not {"compute", "memory"} & set(names_of(events, "thread_name").values())


def simulate(*options: str) -> Any:
    return CliRunner().invoke(app, ["simulate", "-w", "trace1", "-n", "60", *options])


def test_the_command_writes_a_trace_and_says_what_it_shows(tmp_path: Path) -> None:
    path = tmp_path / "t.json.gz"
    done = simulate("-s", "dfs", "--engine", "vllm", "--perfetto", str(path))
    assert done.exit_code == 0, done.output
    assert "t.json.gz (every step): open it at https://ui.perfetto.dev" in done.stderr
    facts = read(path)["otherData"]
    assert (facts["scheduler"], facts["engine"]) == ("dfs", "vllm")
    steps = int(done.stdout.partition(" s in ")[2].split()[0].replace(",", ""))
    assert len([e for e in checked_events(path) if e["name"] == "steps"]) == steps


def test_other_names_are_refused_before_the_run(tmp_path: Path) -> None:
    done = simulate("--perfetto", str(tmp_path / "t.pb"))
    assert "expected a name ending in .json or .json.gz" in str(done.exception)
    same = str(tmp_path / "t.json")
    assert "--steps" in str(simulate("--perfetto", same, "--steps", same).exception)


def query(path: Path, *queries: str) -> list[list[dict[str, Any]]]:
    command = ["node", str(HERE / "query.mjs"), str(PROCESSOR), str(path), *queries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows: list[list[dict[str, Any]]] = json.loads(done.stdout)
    return rows


SLICES = """
    select process.name as process, thread.name as thread, count(*) as slices, sum(dur) as ns,
           max(depth) as depth
    from slice join thread_track on slice.track_id = thread_track.id
    join thread using (utid) join process using (upid)
    where slice.dur > 0 group by upid, utid order by upid, tid
"""
COUNTERS = """
    select process.name as process, process_counter_track.name as counter, max(value) as most
    from counter join process_counter_track on counter.track_id = process_counter_track.id
    join process using (upid) group by 1, 2 order by 1, 2
"""
ERRORS = "select name, value from stats where value > 0 and severity in ('error', 'data_loss')"


@needs_processor
@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
def test_perfetto_reads_the_tracks_of_a_run(tmp_path: Path, suffix: str) -> None:
    result = crowded()
    path = tmp_path / f"t{suffix}"
    write_trace(path, simulated(result, {}))
    instants = "select count(*) as n from slice where dur = 0 and name = 'preemption'"
    errors, slices, counters, ((instant),) = query(path, ERRORS, SLICES, COUNTERS, instants)
    assert errors == []
    found = {row["thread"]: row for row in slices}
    assert list(found) == ["steps", "prefill", "decode", "compute", "memory"]
    assert {row["depth"] for row in slices} == {0}
    assert found["steps"]["slices"] == result.steps
    assert found["steps"]["ns"] == pytest.approx(result.makespan_s * 1e9, abs=result.steps)
    assert found["compute"]["ns"] == pytest.approx(result.compute_s * 1e9, abs=result.steps)
    most = {row["counter"]: row["most"] for row in counters}
    assert set(most) == {
        *("KV tokens", "running requests", "admissions compute side", "admissions memory side")
    }
    assert most["KV tokens"] == result.peak_kv_tokens
    assert instant["n"] > 0


@needs_processor
def test_perfetto_reads_replicas_transfers_and_slices_of_time(tmp_path: Path) -> None:
    result = apart()
    trace = simulated(result, {})
    write_trace(tmp_path / "t.json.gz", trace)
    errors, slices = query(tmp_path / "t.json.gz", ERRORS, SLICES)
    assert errors == []
    assert {row["process"] for row in slices} == {
        *("prefill replica 1", "prefill replica 2", "decode replica 1", "KV transfers")
    }
    transfers = [row for row in slices if row["process"] == "KV transfers"]
    assert [row["thread"] for row in transfers] == [
        "from prefill replica 1",
        "from prefill replica 2",
    ]
    assert sum(row["slices"] for row in transfers) == len(result.transfers)
    write_trace(tmp_path / "short.json", trace.shortened(most=12))
    errors, short = query(tmp_path / "short.json", ERRORS, SLICES)
    assert errors == []
    assert {row["depth"] for row in short} == {0}
    assert sum(row["slices"] for row in short) < sum(row["slices"] for row in slices)
