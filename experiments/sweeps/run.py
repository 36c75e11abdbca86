"""Run the cells of a sweep in parallel, save each as it finishes, survive crashes and Ctrl-C."""

import os
import signal
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Protocol

import joblib
import pandas as pd
from joblib.externals.loky.process_executor import BrokenProcessPool

from bssim.errors import InputError
from bssim.experiments.sweeps.cell import Cell
from bssim.experiments.sweeps.ray_cells import run_on_ray
from bssim.experiments.sweeps.row import failed_row
from bssim.experiments.sweeps.run_cell import CellOutcome, Run, run_cell
from bssim.experiments.sweeps.shard import Shard
from bssim.experiments.sweeps.store import Results

BACKENDS = ("loky", "ray")
WATCH_S = 1.0
"""Seconds between two looks of a worker at whether its parent lives."""
TIMELINE_CELLS = 40
"""Larger sweeps keep timelines only if the config asks for them."""


class Progress(Protocol):
    """Receives the progress of a sweep."""

    def start(self, due: int, reused: int) -> None:
        """Receive the number of cells to run and of cells that an earlier sweep finished."""

    def finished(self, cell: Cell, row: dict[str, Any]) -> None:
        """Receive one finished cell."""


@dataclass(frozen=True)
class SweepOutcome:
    """The outcome of a sweep."""

    runs: pd.DataFrame
    """All cells, or those of the shard, in the order of the grid, with the columns of runs.csv."""
    reused: int
    """Number of cells that an earlier sweep finished."""
    interrupted: bool
    """Ctrl-C stopped the sweep before the end."""

    def count(self, status: str) -> int:
        """Return the number of cells that are ``ok``, ``failed`` or ``skipped``."""
        return int((self.runs["status"] == status).sum())


def run_sweep(
    cells: Sequence[Cell],
    results: Results,
    *,
    timeline: bool | None = None,
    jobs: int = -1,
    backend: str = "loky",
    shard: Shard | None = None,
    progress: Progress,
) -> SweepOutcome:
    """Run the cells that have no ok record in ``results``, then write runs.csv and summary.md.

    A cell that raises, or whose worker dies, becomes a failed row; the other cells continue. On
    Ctrl-C, finished cells are kept and the rest are ``skipped``; the same call resumes. A ``shard``
    runs its own cells and writes no tables; the call without it does, when all shards have ended.

    Raises InputError for an unknown backend, and for a folder that another sweep is writing.
    """
    if backend not in BACKENDS:
        raise InputError("backend", repr(backend), f"one of: {', '.join(BACKENDS)}")
    keep = keeps_timelines(cells, timeline)
    own = cells if shard is None else shard.of(cells)
    with results.locked(shared=shard is not None):
        due = [cell for cell in own if not results.is_done(cell, keep)]
        progress.start(len(due), len(own) - len(due))
        interrupted = False
        outcomes = run_all(due, partial(run_cell, timeline=keep), jobs=jobs, backend=backend)
        try:
            for cell, outcome in outcomes:
                results.save(cell, outcome)
                progress.finished(cell, outcome.row)
        except KeyboardInterrupt:
            with warnings.catch_warnings(action="ignore"):  # joblib's, on the cells cut short
                outcomes.close()
            interrupted = True
        runs = results.write_runs(own) if shard is None else results.rows(own).runs
    return SweepOutcome(runs, reused=len(own) - len(due), interrupted=interrupted)


def keeps_timelines(cells: Sequence[Cell], timeline: bool | None) -> bool:
    """Return whether a sweep of ``cells`` keeps timelines; ``timeline`` is what its file says."""
    return len(cells) <= TIMELINE_CELLS if timeline is None else timeline


def run_all(
    cells: Iterable[Cell], run: Run, *, jobs: int, backend: str = "loky"
) -> Generator[tuple[Cell, CellOutcome]]:
    """Yield each cell with its outcome as it finishes, each exactly once.

    A dying worker ends the whole pool without naming its cell. So every cell that had started but
    not finished runs again in a separate process: only the faulty one dies again and becomes a
    failed row.
    """
    if backend == "ray":
        yield from run_on_ray(cells, run, jobs)
        return
    waiting = {cell.config_hash: cell for cell in cells}
    while waiting:
        started: list[str] = []
        try:
            for key, outcome in _parallel(list(waiting.values()), run, jobs, started):
                yield waiting.pop(key), outcome
        except BrokenProcessPool:
            for key in [key for key in started if key in waiting]:
                yield _run_alone(waiting.pop(key), run)


def _run_alone(cell: Cell, run: Run) -> tuple[Cell, CellOutcome]:
    try:
        ((_, outcome),) = _parallel([cell], run, 1, [])
    except BrokenProcessPool as error:
        # joblib's own first line says how the process ended, e.g. SIGKILL(-9) for out of memory.
        cause = str(error).partition("The exit codes of the workers are")[2].strip(" .\n")
        message = f"the worker process died {cause}: out of memory, or a crash in native code"
        outcome = CellOutcome(failed_row(cell.identity(), message))
    return cell, outcome


def _parallel(
    cells: Sequence[Cell], run: Run, jobs: int, started: list[str]
) -> Iterator[tuple[str, CellOutcome]]:
    """Yield outcomes as they finish; add each cell to ``started`` when a worker gets it."""
    workers = joblib.effective_n_jobs(jobs)

    def tasks() -> Iterator[Any]:
        for cell in cells:
            started.append(cell.config_hash)
            yield joblib.delayed(_in_worker)(run, cell, os.getpid())

    # With one worker joblib would run cells in this process, which a crash would end;
    # pre_dispatch limits the number of running cells to `workers`.
    with joblib.parallel_config(backend="loky"):
        yield from joblib.Parallel(
            n_jobs=max(workers, 2),
            pre_dispatch=workers,
            batch_size=1,
            return_as="generator_unordered",
        )(tasks())


def _in_worker(run: Run, cell: Cell, parent: int) -> tuple[str, CellOutcome]:
    # Ctrl-C reaches every process of the terminal's group; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(parent)
    return cell.config_hash, run(cell)


@cache
def _end_with(parent: int) -> None:
    """Let this worker end when its parent has been killed; loky's would finish the cell first.

    Otherwise the sweep that resumes would run the same cell beside it.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
