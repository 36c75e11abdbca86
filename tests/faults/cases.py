"""The commands that the campaign of kills disturbs, and what each must have made in the end."""

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

SWEEP = """
workloads: fixed:64x8
schedulers: [fcfs, dfs]
num_requests: 20
seeds: [0, 1]
"""
FAULTS = ("kill", "SIGTERM", "SIGINT", "full disk")
VLLM_MODULES = (
    "vllm.entrypoints.launchers.run_batch",
    "vllm.model_executor.models.llama",
    "vllm.v1.engine.llm_engine",
)


def _nothing(folder: Path) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Case:
    """A command, and what it must have made in the end."""

    name: str
    arguments: list[str]
    result: Callable[[Path], Any]
    """What the command made in a folder, without what may differ from run to run."""
    prepare: Callable[[Path], None] = _nothing
    resume: tuple[str, ...] = ()
    """Options of the command that continues, once ``replay.json`` is there."""
    done: tuple[int, ...] = (0,)
    """Exit statuses of a command that nothing disturbs."""
    faults: tuple[str, ...] = FAULTS
    has_engine: bool = False
    """Whether it starts vLLM, which hangs in a library if its own temporary file cannot grow."""


def write_sweep(folder: Path) -> None:
    """Write the sweep file ``demo.yaml``: four cells."""
    (folder / "demo.yaml").write_text(SWEEP)


def _sweep_result(folder: Path) -> Any:
    runs = pd.read_csv(folder / "results/demo/runs.csv")
    table = pd.read_parquet(folder / "results/demo/runs.parquet")
    assert table["config_hash"].tolist() == runs["config_hash"].tolist()
    assert not list((folder / "results").rglob(".*.tmp"))
    summary = (folder / "results/demo/summary.md").read_text()
    return runs.drop(columns=["plan_wall_s", "sim_wall_s"]).to_csv(), summary


def sweep_case() -> Case:
    """Return a sweep of four cells. Workers run them, and the command itself saves them."""
    arguments = ["sweep", "demo.yaml", "--no-figures", "-j", "2"]
    return Case("sweep", arguments, _sweep_result, write_sweep, faults=(*FAULTS, "a worker killed"))


def _sweep_with_all_files() -> Case:
    """Return a sweep that draws and reports too."""

    def result(folder: Path) -> Any:
        made = folder / "results/demo"
        figures = sorted(path.name for path in (made / "figures").iterdir())
        assert (made / "report.html").read_text().rstrip().endswith("</html>")
        return *_sweep_result(folder), figures

    arguments = ["sweep", "demo.yaml", "-j", "2", "--report"]
    return Case("sweep --report", arguments, result, write_sweep, faults=("full disk",))


def report_case(finished: Path) -> Case:
    """Return a report on a copy of the results folder ``finished``."""

    def prepare(folder: Path) -> None:
        shutil.copytree(finished, folder / "demo")

    return Case(
        "report", ["report", "demo"], lambda f: (f / "demo/report.html").read_bytes(), prepare
    )


def _write_batch(folder: Path) -> None:
    lines = [
        {"custom_id": f"c{i}", "body": {"prompt": [i % 5, 7, *range(i % 7)], "max_tokens": 9}}
        for i in range(60)
    ]
    (folder / "batch.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "done.jsonl").write_text(
        "".join(json.dumps({**line, "response": None}) + "\n" for line in lines[::-1])
    )


def _files(*names: str) -> Callable[[Path], Any]:
    """Return a function that reads these files of a folder."""
    return lambda folder: [(folder / name).read_bytes() for name in names]


def cases(finished: Path) -> list[Case]:
    """Return the commands that need no vLLM. ``finished``: the results folder of a sweep."""
    plan = ["plan", "batch.jsonl", "-o", "ordered.jsonl", "--dp", "2", "-q"]
    steps = ["--steps", "steps.jsonl", "--schedule", "order.jsonl", "--timeline", "t.parquet"]
    return [
        sweep_case(),
        _sweep_with_all_files(),
        Case("plan", plan, _files("ordered.0.jsonl", "ordered.1.jsonl"), _write_batch),
        report_case(finished),
        Case(
            "restore",
            ["restore", "batch.jsonl", "done.jsonl", "-o", "restored.jsonl"],
            _files("restored.jsonl"),
            _write_batch,
            done=(1,),  # its rows are failed requests
        ),
        Case(
            "simulate",
            ["simulate", "-w", "batch.jsonl", "-s", "dfs", *steps, "--perfetto", "p.json.gz"],
            _files("steps.jsonl", "order.jsonl", "p.json.gz"),
            _write_batch,
        ),
    ]


def vllm_cases(folder: Path) -> list[Case]:
    """Return ``run`` and ``replay`` on vLLM's CPU engine; a model and a batch go to ``folder``."""
    from tests.backends.openai_model import (
        ENGINE_ARGS,
        document_questions,
        model_folder,
        read_rows,
        text_of,
        write_lines,
    )

    model = str(model_folder(folder / "model"))
    batch = str(write_lines(folder / "batch.jsonl", document_questions(150)))
    run = ["run", batch, "-o", "out.jsonl", "-m", model, "-q"]
    run += ["--engine-args", shlex.join(ENGINE_ARGS)]
    pool, order = _write_pool(folder, model)
    replay = ["replay", order, "-w", pool, "--model-path", model, "-o", "replay.json"]
    replay += ["--dtype", "float32", "--enforce-eager", "--dummy-weights", "-q"]
    replay += ["--set", "engine.block_size=32", "--set", "engine.num_gpu_blocks=80"]
    replay += ["--set", "engine.max_num_batched_tokens=256", "--set", "engine.max_num_seqs=16"]

    def texts(folder: Path) -> Any:
        return {name: text_of(row) for name, row in read_rows(folder / "out.jsonl").items()}

    def served(folder: Path) -> Any:
        head = json.loads((folder / "replay.json").read_text())
        assert head["error"] == ""
        rows = (folder / "replay.requests.jsonl").read_text().splitlines()
        names = ("request_id", "prompt_tokens", "output_tokens")
        return sorted([json.loads(row)[name] for name in names] for row in rows)

    return [
        Case("run", run, texts, has_engine=True),
        Case("replay", replay, served, resume=("--resume",), has_engine=True),
    ]


def _write_pool(folder: Path, model: str) -> tuple[str, str]:
    """Write a pool of 60 requests and the order of `dfs` for it; return the two paths."""
    import bssim
    from bssim.sim.schedule import write_schedule

    pool, order = folder / "pool.jsonl", folder / "order.jsonl"
    lines = [
        {"id": f"r{i}", "prompt_token_ids": [i % 5, 7, *range(i % 9)], "output_tokens": 20}
        for i in range(60)
    ]
    pool.write_text("".join(json.dumps(line) + "\n" for line in lines))
    llm = bssim.load_model(model, dtype="float32")
    made = bssim.simulate(pool, "dfs", model=llm, engine="vllm")
    write_schedule(order, made.schedule, made.workload)
    return str(pool), str(order)
