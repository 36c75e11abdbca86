"""Commands killed, interrupted or out of disk at any point: the same command then gives the same.

``python -m tests.faults.kills`` prints a table of counts. Run and replay need vLLM.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tests.faults.forks import Forks

SWEEP = """
workloads: fixed:64x8
schedulers: [fcfs, dfs]
num_requests: 20
seeds: [0, 1]
"""
FAULTS = ("kill", "SIGTERM", "SIGINT", "full disk", "file too large")
STATUSES = {"SIGTERM": (143,), "SIGINT": (130,), "full disk": (1, 2), "file too large": (1, 2)}
"""Exit statuses of a command that a fault ended; 0 if it was done before."""
NOT_RESUMED = "run, replay"


@dataclass(frozen=True)
class Case:
    """A command, and what it must have made in the end."""

    name: str
    arguments: list[str]
    result: Callable[[Path], Any]
    """What the command made in a folder, without what may differ from run to run."""
    prepare: Callable[[Path], None]
    resume: tuple[str, ...] = ()
    """Options of the command that continues."""
    done: tuple[int, ...] = (0,)
    seconds: float = 1.0
    """What the command takes, about."""


def _sweep_result(folder: Path) -> Any:
    runs = pd.read_csv(folder / "results/demo/runs.csv")
    assert not list((folder / "results").rglob(".*.tmp"))
    summary = (folder / "results/demo/summary.md").read_text()
    return runs.drop(columns=["plan_wall_s", "sim_wall_s"]).to_csv(), summary


def _write_sweep(folder: Path) -> None:
    (folder / "demo.yaml").write_text(SWEEP)


def _write_batch(folder: Path) -> None:
    lines = [
        {"custom_id": f"c{i}", "body": {"prompt": [i % 5, 7, *range(i % 7)], "max_tokens": 9}}
        for i in range(60)
    ]
    (folder / "batch.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "done.jsonl").write_text(
        "".join(json.dumps({**line, "response": None}) + "\n" for line in lines[::-1])
    )


def sweep_case() -> Case:
    """Return a sweep; workers run its cells, and this process saves them."""
    arguments = ["sweep", "demo.yaml", "-j", "1", "--no-figures"]
    return Case("sweep", arguments, _sweep_result, _write_sweep, seconds=3)


def report_case(finished: Path) -> Case:
    """Return a report on a copy of the results folder ``finished``."""

    def prepare(folder: Path) -> None:
        import shutil

        shutil.copytree(finished, folder / "demo")

    return Case(
        "report", ["report", "demo"], lambda f: (f / "demo/report.html").read_bytes(), prepare
    )


def cases(finished: Path) -> list[Case]:
    """Return the commands that need no vLLM. ``finished``: a results folder."""
    plan = ["plan", "batch.jsonl", "-o", "ordered.jsonl", "--dp", "2"]
    parts = ("ordered.0.jsonl", "ordered.1.jsonl")
    steps = ["--steps", "steps.jsonl", "--schedule", "order.jsonl", "--timeline", "t.parquet"]
    return [
        sweep_case(),
        Case("plan", plan, lambda f: [(f / part).read_bytes() for part in parts], _write_batch),
        report_case(finished),
        Case(
            "restore",
            ["restore", "batch.jsonl", "done.jsonl", "-o", "restored.jsonl"],
            lambda f: (f / "restored.jsonl").read_bytes(),
            _write_batch,
            done=(1,),  # its rows are failed requests
        ),
        Case(
            "simulate",
            ["simulate", "-w", "batch.jsonl", "-s", "dfs", *steps],
            lambda f: [(f / name).read_bytes() for name in ("steps.jsonl", "order.jsonl")],
            _write_batch,
        ),
    ]


def vllm_cases(model: Path, batch: Path, flags: list[str]) -> list[Case]:
    """Return ``run`` and ``replay`` on vLLM's CPU engine, with a model folder and a batch file."""
    import shlex

    from tests.backends.openai_model import read_rows, text_of

    run = ["run", str(batch), "-o", "out.jsonl", "-m", str(model)]
    run += ["--engine-args", shlex.join(flags)]
    replay = ["replay", "order.jsonl", "-w", "pool.jsonl", "--model-path", str(model)]
    replay += ["--dtype", "float32", "--enforce-eager", "-o", "replay.json"]
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

    def pool(folder: Path) -> None:
        import bssim
        from bssim.sim.schedule import write_schedule
        from bssim.sim.workload import convert  # noqa: F401

        lines = [
            {"id": f"r{i}", "prompt_token_ids": [i % 5, 7, *range(i % 9)], "output_tokens": 30}
            for i in range(100)
        ]
        (folder / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        made = bssim.simulate(folder / "pool.jsonl", "dfs", engine="vllm")
        write_schedule(folder / "order.jsonl", made.schedule, made.workload)

    return [
        Case("run", run, texts, lambda _: None, seconds=4),
        Case("replay", replay, served, pool, resume=("--resume",), seconds=5),
    ]


class Campaign:
    """Runs cases with faults, and compares what they make with what an undisturbed run makes."""

    def __init__(self, forks: Forks, seed: int) -> None:
        self._forks, self._rng = forks, random.Random(seed)
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """By command, fault and end: ``hit``, ``missed`` (it ended before), ``wrong``."""
        self.wrong: list[str] = []

    def run(self, case: Case, fault: str, times: int) -> None:
        """Run a case until a fault has hit it ``times`` times."""
        with tempfile.TemporaryDirectory() as folder:
            case.prepare(Path(folder))
            status, err = self._forks.run(case.arguments, Path(folder))
            assert status in case.done, err
            expected = case.result(Path(folder))
        tries = 0
        while self.counts[case.name, fault, "hit"] < times and tries < 3 * times:
            tries += 1
            with tempfile.TemporaryDirectory() as folder:
                self._once(case, fault, tries, Path(folder), expected)

    def _once(self, case: Case, fault: str, tries: int, folder: Path, expected: Any) -> None:
        case.prepare(folder)
        status, err = self._with_fault(case, fault, tries, folder)
        told = fault == "kill" or status in STATUSES[fault]
        end = "missed" if status in case.done and status != 2 else "hit"
        problem = ""
        if end == "hit" and (not told or "Traceback" in err):
            problem = f"exit status {status}: {err[-300:]}"
        if end == "hit" and fault != "kill" and err.count("\n") > 12:
            problem = f"a long message: {err[-300:]}"
        started = (folder / "replay.json").exists()
        again = [*case.arguments, *(case.resume if started else ())]
        status, err = self._forks.run(again, folder)
        if status not in case.done:
            problem = problem or f"does not resume: exit status {status}: {err[-300:]}"
        elif case.result(folder) != expected:
            problem = problem or "another result"
        if problem:
            end = "wrong"
            self.wrong.append(f"{case.name}, {fault}, try {tries}: {problem}")
        self.counts[case.name, fault, end] += 1

    def _with_fault(self, case: Case, fault: str, tries: int, folder: Path) -> tuple[int, str]:
        """Run a command with a fault: at every file operation in turn, or after some time."""
        forks, rng = self._forks, self._rng
        if fault == "full disk":
            return forks.run(case.arguments, folder, at=2 * tries - rng.randint(0, 1), full=True)
        if fault == "file too large":
            return forks.run(case.arguments, folder, file_size=int(10 ** rng.uniform(0, 4.5)))
        number = signal.SIGKILL if fault == "kill" else signal.Signals[fault]
        if tries % 2:
            at = rng.randint(1, 40) if case.name == "sweep" else 1 + tries // 2 % 12
            return forks.run(case.arguments, folder, at=at, signal=int(number))
        process = forks.start(case.arguments, folder)
        time.sleep(rng.uniform(0.02, case.seconds))
        try:
            import os

            os.kill(process, number)
        except ProcessLookupError:
            pass
        return forks.end(), (folder / "stderr").read_text()


def main() -> None:
    """Run the campaign, print its counts, and fail if a case went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=40, help="kills of each command")
    parser.add_argument("--others", type=int, default=10, help="other faults of each command")
    parser.add_argument("--only", default="", help="one command")
    parser.add_argument("--vllm", action="store_true", help="run and replay instead")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        modules = ()
        if options.vllm:
            from tests.backends.openai_model import (
                ENGINE_ARGS,
                document_questions,
                model_folder,
                write_lines,
            )

            modules = (
                "vllm.entrypoints.launchers.run_batch",
                "vllm.model_executor.models.llama",
                "vllm.v1.engine.llm_engine",
            )
            batch = write_lines(made / "batch.jsonl", document_questions(300))
            todo = vllm_cases(model_folder(made / "model"), batch, ENGINE_ARGS)
        with Forks(*modules) as forks:
            if not options.vllm:
                _write_sweep(made)
                assert forks.run(sweep_case().arguments, made)[0] == 0
                todo = cases(made / "results/demo")
            campaign = Campaign(forks, options.seed)
            for case in todo:
                if options.only in ("", case.name):
                    for fault in FAULTS:
                        times = options.times if fault == "kill" else options.others
                        campaign.run(case, fault, times)
                        row = {
                            e: campaign.counts[case.name, fault, e]
                            for e in ("hit", "missed", "wrong")
                        }
                        print(f"{case.name}, {fault}: {row}", flush=True)
    print("\n".join(campaign.wrong))
    sys.exit(bool(campaign.wrong))


if __name__ == "__main__":
    main()
