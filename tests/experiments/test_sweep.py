"""Sweeps: every cell once, crashes contained, finished cells kept and not run again."""

import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

from bssim.errors import InputError
from bssim.experiments.sweeps import (
    COLUMNS,
    Cell,
    Results,
    Shard,
    SweepOutcome,
    cell_labels,
    records,
    run_cell,
    run_sweep,
)
from bssim.experiments.sweeps import run as sweep_module
from bssim.experiments.sweeps.row import failed_row
from bssim.experiments.sweeps.run import run_all
from bssim.experiments.sweeps.run_cell import CellOutcome, Loaded, Run
from bssim.sim.engine import load_preset


class Recorder:
    """Notes what a sweep reports; can raise Ctrl-C at the n-th finished cell."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.due = self.reused = 0
        self.schedulers: list[str] = []
        self.interrupt_at = interrupt_at

    def start(self, due: int, reused: int) -> None:
        self.due, self.reused = due, reused

    def finished(self, cell: Cell, row: dict[str, Any]) -> None:
        self.schedulers.append(cell.scheduler)
        if len(self.schedulers) == self.interrupt_at:
            raise KeyboardInterrupt


def sweep(cells: list[Cell], folder: Path, recorder: Recorder | None = None) -> SweepOutcome:
    return run_sweep(cells, Results(folder), jobs=2, progress=recorder or Recorder())


def test_a_sweep_writes_all_cells_in_grid_order(small_cells: list[Cell], tmp_path: Path) -> None:
    outcome = sweep(small_cells, tmp_path / "r")
    runs = Results(tmp_path / "r").read_runs()
    assert list(runs.columns) == list(COLUMNS)
    assert list(runs["config_hash"]) == [cell.config_hash for cell in small_cells]
    assert outcome.count("ok") == len(small_cells)
    assert (runs["num_requests"] == 300).all()
    assert (runs["makespan_s"] > 0).all()
    assert (runs["share_of_optimum"] <= 1).all()
    assert (tmp_path / "r" / "runs.parquet").exists()
    assert not list((tmp_path / "r").rglob("*.tmp"))


def test_only_changed_cells_run_again(small_cells: list[Cell], tmp_path: Path) -> None:
    sweep(small_cells, tmp_path / "r")
    again = Recorder()
    first = (tmp_path / "r" / "runs.csv").read_bytes()
    sweep(small_cells, tmp_path / "r", again)
    assert (again.due, again.reused) == (0, len(small_cells))
    assert (tmp_path / "r" / "runs.csv").read_bytes() == first
    changed = [replace(small_cells[0], seed=5), *small_cells[1:]]
    sweep(changed, tmp_path / "r", again)
    assert (again.due, again.reused) == (1, len(small_cells) - 1)


def test_swept_fields_are_columns_of_every_table_and_words_of_every_line(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    cells = cells_of("""
workload: trace1
scheduler: dfs
num_requests: 60
engines:
  - preset: vllm
    max_num_seqs: [16, 64]
  - vllm
""")
    runs = sweep(cells, tmp_path / "r").runs
    column = "engine.max_num_seqs"
    assert list(runs.columns) == [*COLUMNS, column]
    assert runs[column].tolist() == [16, 64, load_preset("vllm").max_num_seqs]
    pd.testing.assert_frame_equal(Results(tmp_path / "r").read_runs(), runs)
    assert [row[column] for row in records(runs)] == runs[column].tolist()
    labels = list(cell_labels(cells).values())
    assert labels[0] == "trace1 dfs, max_num_seqs=16"
    assert len(set(labels)) == 3


def test_ctrl_c_keeps_finished_cells_and_the_same_sweep_resumes(
    small_cells: list[Cell], tmp_path: Path
) -> None:
    outcome = sweep(small_cells, tmp_path / "r", Recorder(interrupt_at=2))
    assert outcome.interrupted
    assert outcome.count("ok") == 2
    assert outcome.count("skipped") == len(small_cells) - 2
    rest = Recorder()
    outcome = sweep(small_cells, tmp_path / "r", rest)
    assert rest.reused == 2
    assert outcome.count("ok") == len(small_cells)


def test_a_cell_that_raises_is_a_failed_row_and_runs_again_next_time(
    small_cells: list[Cell], tmp_path: Path
) -> None:
    bad = replace(small_cells[0], engine=replace(small_cells[0].engine, max_model_len=3))
    cells = [bad, *small_cells[1:3]]
    outcome = sweep(cells, tmp_path / "r")
    assert outcome.count("failed") == 1
    row = outcome.runs.iloc[0]
    assert row["status"] == "failed"
    assert "max_model_len" in row["error"]
    assert row["scheduler"] == bad.scheduler
    again = Recorder()
    sweep(cells, tmp_path / "r", again)
    assert again.due == 1


def test_an_unexpected_error_names_its_type_and_place(
    small_cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of nothing")

    monkeypatch.setattr(import_module("bssim.experiments.sweeps.run_cell"), "simulate", broken)
    row = run_cell(small_cells[0]).row
    assert row["status"] == "failed"
    assert row["error"].startswith("ZeroDivisionError: of nothing (test_sweep.py:")


def dying(fatal: str) -> Run:
    """Return a run whose process is killed at the cells of one scheduler."""

    def run(cell: Cell, loaded: Loaded | None = None) -> CellOutcome:
        if cell.scheduler == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return CellOutcome(failed_row(cell.identity(), "", status="ok"))

    return run


def test_a_dying_worker_costs_its_own_cell_only(small_cells: list[Cell]) -> None:
    outcomes = list(run_all(small_cells, dying("dfs"), jobs=2))
    assert sorted(c.config_hash for c, _ in outcomes) == sorted(c.config_hash for c in small_cells)
    for cell, outcome in outcomes:
        assert outcome.row["status"] == ("failed" if cell.scheduler == "dfs" else "ok")
        assert outcome.row["config_hash"] == cell.config_hash
        if cell.scheduler == "dfs":
            assert "worker process died" in outcome.row["error"]
            assert "SIGKILL" in outcome.row["error"]


@pytest.fixture
def ray_finds_bssim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers, which inherit no sys.path, import the checkout that is tested."""
    import bssim

    monkeypatch.setenv("PYTHONPATH", str(Path(bssim.__file__).parents[1]))


@pytest.mark.usefixtures("ray_finds_bssim")
def test_ray_runs_the_same_cells_and_contains_the_same_crash(small_cells: list[Cell]) -> None:
    outcomes = dict(run_all(small_cells, dying("dfs"), jobs=2, backend="ray"))
    assert set(outcomes) == set(small_cells)
    for cell, outcome in outcomes.items():
        assert outcome.row["status"] == ("failed" if cell.scheduler == "dfs" else "ok")


@pytest.mark.usefixtures("ray_finds_bssim")
def test_a_sweep_on_ray_gives_the_rows_of_a_sweep_in_processes(
    small_cells: list[Cell], tmp_path: Path
) -> None:
    here = run_sweep(small_cells[:2], Results(tmp_path / "a"), jobs=1, progress=Recorder())
    on_ray = run_sweep(
        small_cells[:2], Results(tmp_path / "b"), jobs=2, backend="ray", progress=Recorder()
    )
    same = [column for column in COLUMNS if not column.endswith("_wall_s")]
    assert on_ray.runs[same].equals(here.runs[same])
    assert set(on_ray.runs["status"]) == {"ok"}


def test_ray_without_ray_says_what_to_install(
    small_cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install \"bssim\[ray\]\""):
        list(run_all(small_cells, run_cell, jobs=1, backend="ray"))


def test_an_unknown_backend_is_refused(small_cells: list[Cell], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found 'dask'; expected one of: loky, ray"):
        run_sweep(small_cells, Results(tmp_path), backend="dask", progress=Recorder())


def test_a_record_outlives_the_file_that_its_cell_read(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    (tmp_path / "mine.csv").write_text("prompt_tokens,output_tokens\n10,2\n12,3\n")
    (cell,) = cells_of("workloads: [{source: mine.csv}]\nschedulers: [fcfs]")
    outcome = run_cell(cell)
    (tmp_path / "mine.csv").unlink()
    results = Results(tmp_path / "results")
    results.save(cell, outcome)
    assert results.record(cell.config_hash) is not None


def test_a_half_written_record_is_run_again(small_cells: list[Cell], tmp_path: Path) -> None:
    results = Results(tmp_path)
    cell = small_cells[0]
    results.save(cell, CellOutcome(failed_row(cell.identity(), "", status="ok")))
    assert results.is_done(cell, timeline=False)
    assert not results.is_done(cell, timeline=True)
    path = results.cell_path(cell.config_hash)
    path.write_text(path.read_text()[:40])
    assert not results.is_done(cell, timeline=False)


def test_a_folder_from_before_a_column_is_readable(small_cells: list[Cell], tmp_path: Path) -> None:
    results = Results(tmp_path)
    sweep(small_cells[:2], tmp_path)
    path = results.cell_path(small_cells[0].config_hash)
    record = json.loads(path.read_text())
    for column in ("pp", "dtype", "tail_share", "throughput_without_tail_tok_s"):
        del record["row"][column]
    path.write_text(json.dumps(record))
    again = Recorder()
    runs = sweep(small_cells[:2], tmp_path, again).runs
    assert again.due == 0
    assert runs["pp"].tolist() == [1, 1]
    assert runs["dtype"].nunique() == 1
    assert runs["tail_share"].isna().tolist() == [True, False]
    assert "nothing to compare" not in (tmp_path / "summary.md").read_text()


def test_timelines_are_kept_where_asked_for(small_cells: list[Cell], tmp_path: Path) -> None:
    results = Results(tmp_path / "r")
    outcome = run_sweep(small_cells[:1], results, timeline=True, jobs=1, progress=Recorder())
    (timeline,) = results.timelines(outcome.runs).values()
    row = outcome.runs.iloc[0]
    assert timeline["steps"].sum() == row["steps"]
    for column in ("compute_s", "memory_s"):
        total = (timeline[column] * timeline["steps"]).sum()
        assert total == pytest.approx(row[column], rel=1e-9)


def test_large_sweeps_keep_no_timelines_unless_told(
    small_cells: list[Cell], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_module, "TIMELINE_CELLS", 0)
    results = Results(tmp_path / "r")
    outcome = run_sweep(small_cells[:1], results, jobs=1, progress=Recorder())
    assert results.timelines(outcome.runs) == {}


def test_parts_of_a_sweep_make_the_whole(small_cells: list[Cell], tmp_path: Path) -> None:
    """Parts run every cell once and write no tables; the whole then runs none and writes them."""
    results, ran = Results(tmp_path / "r"), []
    for index in range(4):
        watch = Recorder()
        shard = Shard.parse(f"{index}/4")
        outcome = run_sweep(small_cells, results, jobs=2, shard=shard, progress=watch)
        assert outcome.count("ok") == watch.due
        ran.append([cell.config_hash for cell in shard.of(small_cells)])
        assert list(outcome.runs["config_hash"]) == ran[-1]
    assert sorted(map(len, ran)) == [1, 1, 2, 2]
    assert sorted(key for part in ran for key in part) == sorted(
        cell.config_hash for cell in small_cells
    )
    assert not (tmp_path / "r" / "runs.csv").exists()
    whole = Recorder()
    outcome = sweep(small_cells, tmp_path / "r", whole)
    assert (whole.due, outcome.count("ok")) == (0, 6)
    assert (tmp_path / "r" / "runs.csv").exists()


@pytest.mark.parametrize("text", ["4/4", "1", "-1/4", "a/b", "0/0", "1/4/2", "١/4"])
def test_a_part_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"--shard: found '{text}'; expected I/N"):
        Shard.parse(text)


def test_a_second_sweep_into_one_folder_is_refused(small_cells: list[Cell], tmp_path: Path) -> None:
    """Parts may run beside each other, but not beside the whole, which writes the tables."""
    results = Results(tmp_path / "r")
    with results.locked(), pytest.raises(InputError, match="another sweep is writing it"):
        sweep(small_cells, tmp_path / "r")
    with results.locked(shared=True):
        with pytest.raises(InputError, match="another sweep is writing it"):
            sweep(small_cells, tmp_path / "r")
        part = Shard(0, 6)
        outcome = run_sweep(small_cells, results, jobs=1, shard=part, progress=Recorder())
        assert outcome.count("ok") == 1
    assert sweep(small_cells, tmp_path / "r").reused == 1


@pytest.mark.parametrize("error", [BrokenProcessPool, TerminatedWorkerError])
def test_however_a_pool_of_workers_breaks_its_cells_run_again(
    small_cells: list[Cell], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """A worker that dies while it sends a result breaks the pool with the general error."""
    calls = []
    parallel = sweep_module._parallel

    def breaks_once(cells: Any, run: Any, jobs: int, started: list[str]) -> Iterator[Any]:
        calls.append(len(cells))
        outcomes = parallel(cells, run, jobs, started)
        yield next(outcomes)
        if len(calls) == 1:
            raise error("A result has failed to un-serialize.")
        yield from outcomes

    monkeypatch.setattr(sweep_module, "_parallel", breaks_once)
    outcomes = list(run_all(small_cells, dying("none"), jobs=2))
    assert sorted(c.config_hash for c, _ in outcomes) == sorted(c.config_hash for c in small_cells)
    assert {outcome.row["status"] for _, outcome in outcomes} == {"ok"}
    assert len(calls) > 1


def test_a_record_is_sound_only_if_its_inputs_have_its_name(
    small_cells: list[Cell], tmp_path: Path
) -> None:
    """The name of a record is the hash of its inputs, so any change to them shows."""
    sweep(small_cells[:1], tmp_path / "r")
    results, key = Results(tmp_path / "r"), small_cells[0].config_hash
    path = results.cell_path(key)
    whole = json.loads(path.read_bytes())
    assert results.record(key) == whole
    changes = [
        {"inputs": whole["inputs"] | {"seed": 9}},
        {"inputs": whole["inputs"] | {"file_digests": None}},
        *(
            {"row": whole["row"] | {name: value}}
            for name, value in (
                *(("makespan_s", "fast"), ("makespan_s", 0), ("steps", 2.5), ("steps", -1)),
                *(("status", "fine"), ("config_hash", "x"), ("workload", 3), ("sharing", True)),
            )
        ),
        {"workload_notes": [None]},
    ]
    for change in changes:
        path.write_text(json.dumps(whole | change))
        assert results.record(key) is None, change


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("throughput_tok_s", "", "row 1: throughput_tok_s: found nothing; expected a number"),
        ("makespan_s", "inf", "row 1: makespan_s: found inf; expected a finite number"),
        ("steps", "-1", "row 1: steps: found -1; expected a count"),
        ("steps", "9" * 400, "runs.csv: "),
        ("status", "fine", "row 1: status: found 'fine'; expected one of: ok, failed, skipped"),
        ("config_hash", "../../x", "row 1: config_hash: found '../../x'; expected letters"),
    ],
)
def test_a_damaged_table_of_runs_is_named_with_row_and_column(
    small_cells: list[Cell], tmp_path: Path, column: str, value: str, message: str
) -> None:
    sweep(small_cells[:1], tmp_path / "r")
    path = tmp_path / "r" / "runs.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[0, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=re.escape(message)):
        Results(tmp_path / "r").read_runs()


def test_a_damaged_timeline_is_named(small_cells: list[Cell], tmp_path: Path) -> None:
    sweep(small_cells[:1], tmp_path / "r")
    results = Results(tmp_path / "r")
    path = results.timeline_path(small_cells[0].config_hash)
    whole = path.read_bytes()
    for damage in (b"", whole[:-100], whole[100:], b"PAR1" + whole[9:]):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=r"cannot be read .*; expected .* delete it, and run"):
            results.timelines(results.read_runs())
    pd.read_parquet(io.BytesIO(whole)).assign(step_s=float("nan")).to_parquet(path)
    with pytest.raises(InputError, match="holds no finite numbers"):
        results.timelines(results.read_runs())


def test_a_sweep_of_equal_requests_has_no_tail(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    """The share of the tail was -2e-16, because seconds are added up in another order."""
    cells = cells_of("workload: fixed:64x8\nscheduler: fcfs\nnum_requests: 20\n")
    outcome = sweep(cells, tmp_path / "r")
    assert outcome.count("ok") == 1
    assert outcome.runs["tail_share"].tolist() == [0.0]
