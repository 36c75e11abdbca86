"""A small part of the campaign of kills; ``make faults`` runs all of it."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bssim.experiments.cli import main
from bssim.experiments.sweeps import Cell, Results, expand, read_sweep_file, run_sweep
from tests.faults.cases import Case, cases, report_case, sweep_case, write_sweep
from tests.faults.forks import ENVIRONMENT, Forks
from tests.faults.kills import Campaign, has_ended

SWEEP = ["sweep", "demo.yaml", "-j", "1", "--no-figures"]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as made:
        yield made


@pytest.fixture(scope="module")
def finished(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results folder of a sweep."""
    folder = tmp_path_factory.mktemp("finished")
    write_sweep(folder)
    assert forks.run(sweep_case().arguments, folder)[0] == 0
    return folder / "results/demo"


def disturbed(forks: Forks, case: Case, faults: tuple[str, ...], times: int) -> None:
    """Run a case with faults; some of them hit it before it ends."""
    campaign = Campaign(forks, seed=1)
    whole = campaign.undisturbed(case)
    for fault in faults:
        campaign.run(case, fault, times, whole)
    assert campaign.wrong == []
    assert campaign.counts[case.name, faults[0], "hit"] > 0


@pytest.mark.parametrize("name", ["plan", "restore", "simulate"])
def test_a_disturbed_command_gives_the_same_result_when_it_runs_again(
    forks: Forks, name: str, tmp_path: Path
) -> None:
    (case,) = (case for case in cases(tmp_path) if case.name == name)
    disturbed(forks, case, ("kill", "SIGTERM", "SIGINT", "full disk"), times=2)


def test_a_disturbed_report_gives_the_same_file(forks: Forks, finished: Path) -> None:
    disturbed(forks, report_case(finished), ("kill", "SIGTERM"), times=1)


def test_a_disturbed_sweep_resumes(forks: Forks) -> None:
    """A killed worker, as the kernel kills when memory runs out, costs no cell at all."""
    disturbed(forks, sweep_case(), ("kill", "SIGTERM", "full disk", "a worker killed"), times=1)


def test_a_kill_in_the_middle_of_a_figure_leaves_no_part_of_it(
    forks: Forks, finished: Path, tmp_path: Path
) -> None:
    """The earlier figure stays, or none is there. The next command removes what was left."""
    shutil.copytree(finished, tmp_path / "demo")
    figures, plot = tmp_path / "demo/figures", ["plot", "demo"]

    def drawn() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in figures.glob("[!.]*")}

    def killed() -> int:
        return forks.run(plot, tmp_path, at=1, file_size=1000, kills=True)[0]

    assert killed() == -signal.SIGXFSZ
    assert drawn() == {}
    assert [path.stat().st_size for path in figures.iterdir()] == [1000]  # it was half written
    assert forks.run(plot, tmp_path)[0] == 0
    whole = drawn()
    assert set(whole) == {path.name for path in figures.iterdir()}
    assert killed() == -signal.SIGXFSZ
    assert drawn() == whole


ENDLESS = """
import os, time
from pathlib import Path
from bssim.experiments.sweeps import expand, read_sweep_file
from bssim.experiments.sweeps.run import run_all

def run(cell, loaded=None):
    Path(f"{os.getpid()}.worker").touch()
    time.sleep(3600)

list(run_all(expand(read_sweep_file(Path("demo.yaml"))), run, jobs=1))
"""


def test_workers_end_with_a_killed_sweep(tmp_path: Path) -> None:
    """They must not go on with a cell that the next sweep runs again."""
    write_sweep(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", ENDLESS], cwd=tmp_path, env=ENVIRONMENT)
    while not (found := list(tmp_path.glob("*.worker"))):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    worker, patience = int(found[0].stem), time.monotonic() + 300
    while not has_ended(worker):
        assert time.monotonic() < patience
        time.sleep(0.05)


@pytest.mark.parametrize(
    "arguments",
    [
        ("simulate", "-w", "batch.jsonl", "--steps", "/dev/full"),
        ("simulate", "-w", "batch.jsonl", "--schedule", "/dev/full"),
        ("simulate", "-w", "batch.jsonl", "--timeline", "full.parquet"),
        ("simulate", "-w", "batch.jsonl", "--perfetto", "full.json"),
        ("simulate", "-w", "batch.jsonl", "--perfetto", "full.json.gz"),
        ("plan", "batch.jsonl", "-o", "/dev/full"),
        ("restore", "batch.jsonl", "done.jsonl", "-o", "/dev/full"),
        ("report", "demo", "-o", "full.html"),
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-2]} {arguments[-1]}",
)
def test_a_full_disk_is_one_line_that_names_the_file(
    arguments: tuple[str, ...],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (case,) = (case for case in cases(tmp_path) if case.name == "plan")
    case.prepare(tmp_path)
    Path("demo").symlink_to(finished)
    for name in ("full.json", "full.json.gz", "full.html", "full.parquet"):
        Path(name).symlink_to("/dev/full")
    with pytest.raises(SystemExit) as end:
        main(arguments)
    err = capsys.readouterr().err.splitlines()
    assert (end.value.code, err[-1]) == (2, f"error: {arguments[-1]}: No space left on device")


def test_results_that_cannot_be_written_are_one_line(forks: Forks, tmp_path: Path) -> None:
    """A file stands where the folder should be, and then the file system is read-only."""
    write_sweep(tmp_path)
    (tmp_path / "results").write_text("")
    status, err = forks.run(SWEEP, tmp_path)
    assert (status, err.count("\n"), err[:15]) == (2, 1, "error: results/"), err
    (tmp_path / "results").unlink()
    status, err = forks.run(SWEEP, tmp_path, at=1, readonly=True)
    assert (status, err) == (2, "error: results/demo: Read-only file system\n")


def test_a_changed_config_mixes_in_no_stale_cell(forks: Forks, tmp_path: Path) -> None:
    """Neither do a changed trace and the figures of an earlier config."""
    trace = "prompt_tokens,output_tokens\n" + "60,4\n" * 9
    text = "workload: t.csv\nscheduler: {}\nseeds: [0, 1]\n"
    (tmp_path / "t.csv").write_text(trace)
    (tmp_path / "demo.yaml").write_text(text.format("fcfs"))
    folder = tmp_path / "results/demo"

    def sweep(said: str, *options: str) -> pd.DataFrame:
        status, err = forks.run(["sweep", "demo.yaml", "-j", "1", *options], tmp_path)
        assert (status, said in err) == (0, True), err
        return pd.read_csv(folder / "runs.csv")

    first = sweep("2 cells to run", "--no-figures")
    (folder / "figures").mkdir()
    (folder / "figures/mine.png").write_text("not of bssim")
    old = folder / "figures/steps-of-another-workload.png"
    old.write_text("of an earlier config")
    (tmp_path / "demo.yaml").write_text(text.format("dfs"))
    assert sweep("2 cells to run")["scheduler"].tolist() == ["dfs", "dfs"]
    assert not old.exists()
    assert (folder / "figures/mine.png").exists()
    (tmp_path / "demo.yaml").write_text(text.format("fcfs").replace("[0, 1]", "[1, 0, 2]"))
    more = sweep("1 cell to run (2 finished earlier)", "--no-figures")
    assert more["seed"].tolist() == [1, 0, 2]
    (tmp_path / "t.csv").write_text(trace + "700,40\n")
    (tmp_path / "demo.yaml").write_text(text.format("fcfs"))
    changed = sweep("2 cells to run", "--no-figures")
    assert (changed["makespan_s"].to_numpy() > first["makespan_s"].to_numpy()).all()


def test_saving_a_cell_rewrites_nothing(tmp_path: Path) -> None:
    """The bytes written per cell do not grow with the cells; tables are written at the end."""
    file, cells = tmp_path / "demo.yaml", 24
    file.write_text(
        f"workload: fixed:9x9\nscheduler: fcfs\nnum_requests: 3\nseeds: {[*range(10, 10 + cells)]}"
    )
    results = Results(tmp_path / "results")
    watch = Watch(results.folder)
    outcome = run_sweep(expand(read_sweep_file(file)), results, jobs=1, progress=watch)
    assert outcome.count("ok") == cells
    for before, after in pairwise(watch.seen):
        assert before.items() <= after.items()  # no file of an earlier cell has changed
        assert len(after) == len(before) + 2
    sizes = [sum(size for _, size, _ in found.values()) for found in watch.seen]
    written = [after - before for before, after in pairwise(sizes)]
    assert max(written) < 1.02 * min(written)
    assert not [name for name in watch.seen[-1] if name.startswith(("runs", "summary"))]


class Watch:
    """Notes which files a results folder has after each cell: name -> inode, size, time."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[dict[str, tuple[int, int, int]]] = []
        self._folder = folder

    def start(self, due: int, reused: int) -> None:
        pass

    def finished(self, cell: Cell, row: dict[str, Any]) -> None:
        stats = {path.name: path.stat() for path in self._folder.rglob("*") if path.is_file()}
        self.seen.append({n: (s.st_ino, s.st_size, s.st_mtime_ns) for n, s in stats.items()})
