"""A sweep on a real Ray cluster of two nodes: nodes and drivers die, the rows stay the same."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bssim
from bssim.cost_models.fitted import FittedCostModel
from bssim.experiments.sweeps import COLUMNS, Cell, Results, SweepOutcome, run_cell, run_sweep
from bssim.experiments.sweeps.run import run_all
from bssim.experiments.sweeps.run_cell import CellOutcome, Loaded

SOURCES = str(Path(bssim.__file__).parents[1])
SWEEP = """
workloads:
  - source: mine.csv
    name: mine
  - trace1
schedulers: [fcfs, dfs]
num_requests: 200
seeds: [0, 1, 2, 3, 4]
"""
SAME = [column for column in COLUMNS if not column.endswith("_wall_s")]
DRIVER = """
import os, signal, sys
from pathlib import Path
from bssim.experiments.sweeps.config import read_sweep_file
from bssim.experiments.sweeps.grid import expand
from bssim.experiments.sweeps.run import run_sweep
from bssim.experiments.sweeps.store import Results

class Dies:
    finished_cells = 0
    def start(self, due, reused):
        pass
    def finished(self, cell, row):
        self.finished_cells += 1
        if self.finished_cells == 3:
            os.kill(os.getpid(), signal.SIGKILL)

cells = expand(read_sweep_file(Path(sys.argv[1])))
run_sweep(cells, Results(Path(sys.argv[2])), backend="ray", progress=Dies())
"""


class Watch:
    """Notes what a sweep reports."""

    def __init__(self) -> None:
        self.reused = 0
        self.done: list[str] = []

    def start(self, due: int, reused: int) -> None:
        self.reused = reused

    def finished(self, cell: Cell, row: dict[str, Any]) -> None:
        self.done.append(cell.config_hash)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Return a cluster whose first node runs no cells. Tests add the nodes that do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SOURCES)  # workers import the checkout that is tested
        import ray
        from ray.cluster_utils import Cluster

        memory = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def cells(cells_of: Callable[[str], list[Cell]], tmp_path: Path) -> list[Cell]:
    rows = "".join(f"r{i},{100 + i % 7},{20 + i % 5}\n" for i in range(300))
    (tmp_path / "mine.csv").write_text(f"request_id,prompt_tokens,output_tokens\n{rows}")
    return cells_of(SWEEP)


@pytest.fixture
def here(cells: list[Cell], tmp_path: Path) -> SweepOutcome:
    """Run the sweep in local processes."""
    return run_sweep(cells, Results(tmp_path / "here"), jobs=2, progress=Watch())


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)


def on_ray(cells: list[Cell], folder: Path, watch: Watch) -> SweepOutcome:
    return run_sweep(cells, Results(folder), backend="ray", progress=watch)


def test_a_node_dies_in_the_middle_and_every_row_is_there_once(
    cluster: Any, cells: list[Cell], here: SweepOutcome, tmp_path: Path
) -> None:
    """One node never finishes a cell, until it dies with those that it has begun."""
    dying, staying = add_node(cluster), add_node(cluster)
    begun, results = tmp_path / "begun", Results(tmp_path / "ray")
    doomed = dying.node_id

    def run(cell: Cell, loaded: Loaded | None = None) -> CellOutcome:
        from ray import get_runtime_context

        if get_runtime_context().get_node_id() == doomed:
            begun.touch()
            time.sleep(3600)
        return run_cell(cell, loaded, timeline=True)

    done = []
    for cell, outcome in run_all(cells, run, jobs=-1, backend="ray"):
        results.save(cell, outcome)
        done.append(cell.config_hash)
        if len(done) == 3:
            while not begun.exists():
                time.sleep(0.01)
            (tmp_path / "mine.csv").unlink()  # the other cells need the trace file on no node
            cluster.remove_node(dying, allow_graceful=False)
    cluster.remove_node(staying)
    runs = results.write_runs(cells)
    assert runs[SAME].equals(here.runs[SAME])
    assert set(runs["status"]) == {"ok"}
    assert sorted(done) == sorted(cell.config_hash for cell in cells)


def test_a_killed_driver_resumes(
    cluster: Any, cells: list[Cell], here: SweepOutcome, tmp_path: Path
) -> None:
    node = add_node(cluster)
    run = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "demo.yaml"), str(tmp_path / "ray")],
        env={**os.environ, "PYTHONPATH": SOURCES, "RAY_ADDRESS": cluster.address},
        check=False,
    )
    assert run.returncode == -signal.SIGKILL
    watch = Watch()
    outcome = on_ray(cells, tmp_path / "ray", watch)
    cluster.remove_node(node)
    assert watch.reused == 3
    assert len(watch.done) == len(cells) - 3
    assert outcome.runs[SAME].equals(here.runs[SAME])


def test_a_fitted_cost_model_travels_with_its_cells(
    cluster: Any, cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    """The node that runs a cell has no file of the fitted costs."""
    file = tmp_path / "mine.yaml"
    FittedCostModel({"fixed": 0.003, "tokens": 3.5e-5}, "made up", 256.0).write(file)
    cells = cells_of(
        "{workload: trace1, num_requests: 200, scheduler: dfs, cost_model: 'fitted:mine.yaml'}"
    )
    local = run_sweep(cells, Results(tmp_path / "here"), jobs=1, progress=Watch())

    def run(cell: Cell, loaded: Loaded | None = None) -> CellOutcome:
        file.unlink()
        return run_cell(cell, loaded)

    node = add_node(cluster)
    [(_, outcome)] = run_all(cells, run, jobs=-1, backend="ray")
    cluster.remove_node(node)
    assert outcome.row["status"] == "ok"
    assert not file.exists()
    row = local.runs.iloc[0]
    for column in ("cost_model", "config_hash", "makespan_s", "throughput_tok_s", "steps"):
        assert outcome.row[column] == row[column]


def test_a_cell_that_cannot_run_fails_as_it_does_locally(
    cluster: Any, cells: list[Cell], tmp_path: Path
) -> None:
    """One names a file that is gone; no request of the other fits."""
    file, drawn = cells[0], next(cell for cell in cells if cell.workload.source == "trace1")
    gone = replace(file, workload=replace(file.workload, source=str(tmp_path / "gone.csv")))
    small = replace(drawn, engine=replace(drawn.engine, max_model_len=3))
    node = add_node(cluster)
    local = run_sweep([gone, small], Results(tmp_path / "a"), jobs=1, progress=Watch())
    outcome = on_ray([gone, small], tmp_path / "b", Watch())
    cluster.remove_node(node)
    assert set(outcome.runs["status"]) == {"failed"}
    assert outcome.runs[SAME].equals(local.runs[SAME])
