"""Run the sweeps that studies need, each once; then each study writes its chapter."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bssim.errors import InputError
from bssim.experiments.result_pages.study import Chapter, ListsCells, Study
from bssim.experiments.sweeps import (
    Cell,
    Progress,
    Results,
    SweepFile,
    expand,
    read_sweep_file,
    run_sweep,
)

CONFIGS = Path(__file__).parent / "configs"
"""The sweep files that ship with bssim: ``configs/`` of the repository."""

Watch = Callable[[str], AbstractContextManager[Progress]]
"""Makes the progress display of a sweep from the sweep's name."""


@dataclass(frozen=True)
class Finished:
    """A study with its chapter and the cells that have no result."""

    study: Study
    chapter: Chapter
    failed: pd.DataFrame
    """Rows of runs.csv whose status is not ok."""
    cells: int
    """All cells of the study's sweeps."""


class InterruptedStudyError(Exception):
    """Ctrl-C: the finished cells are kept, and the same call resumes."""


def run_studies(
    studies: Sequence[Study],
    out: Path,
    *,
    full: bool = False,
    num_requests: int | None = None,
    jobs: int = -1,
    watch: Watch,
) -> list[Finished]:
    """Run the sweeps of ``studies`` into ``out/SWEEP NAME``, then write the chapters.

    Cells that an earlier call or `bssim sweep` finished there are not run again.
    ``num_requests`` replaces the number in the sweep files. A failed cell is a row of
    `Finished.failed`; a study that needs it gets a chapter that says so. Raises
    InputError for a bad sweep file before anything runs, and InterruptedStudyError at Ctrl-C.
    """
    grids = {name: _grid(name, num_requests) for name in _sweep_names(studies, full)}
    _check_folders(sweep for sweep, _ in grids.values())
    runs: dict[str, pd.DataFrame] = {}
    work = {name: (s.name, cells, s.config.timeline) for name, (s, cells) in grids.items()}
    for study in studies:
        if isinstance(study, ListsCells):
            work[study.name] = (study.name, list(study.cells(num_requests)), False)
    for i, (name, (folder, cells, timeline)) in enumerate(work.items(), start=1):
        with watch(f"{folder} ({i} of {len(work)} sweeps)") as progress:
            outcome = run_sweep(
                cells, Results(out / folder), timeline=timeline, jobs=jobs, progress=progress
            )
        if outcome.interrupted:
            raise InterruptedStudyError
        runs[name] = outcome.runs
    folders = {name: Results(out / folder) for name, (folder, _, _) in work.items()}
    return [_finish(study, folders, runs, full) for study in studies]


def _sweep_names(studies: Sequence[Study], full: bool) -> list[str]:
    return list(dict.fromkeys(name for study in studies for name in study.sweeps(full)))


def _grid(name: str, num_requests: int | None) -> tuple[SweepFile, list[Cell]]:
    sweep = read_sweep_file(CONFIGS / name, num_requests=num_requests)
    return sweep, expand(sweep)


def _check_folders(sweeps: Iterable[SweepFile]) -> None:
    taken: dict[str, SweepFile] = {}
    for sweep in sweeps:
        if (first := taken.setdefault(sweep.name, sweep)) is not sweep:
            raise InputError.saying(
                sweep.path,
                f"name {sweep.name!r} is that of {first.path} too",
                "one of its own, for it names the folder of the results",
            )


def _finish(
    study: Study, folders: Mapping[str, Results], runs: Mapping[str, pd.DataFrame], full: bool
) -> Finished:
    mine = [*study.sweeps(full), *([study.name] if isinstance(study, ListsCells) else [])]
    rows = [runs[name] for name in mine]
    failed = pd.concat([r[r["status"] != "ok"] for r in rows]) if rows else pd.DataFrame()
    cells = sum(len(r) for r in rows)
    try:
        chapter = study.chapter({name: folders[name] for name in mine}, full)
    except Exception as error:
        if failed.empty:
            raise
        why = f"{type(error).__name__}: {error}"
        text = f"This chapter could not be written without the cells that failed ({why})."
        chapter = Chapter(claims=(), text=text)
    return Finished(study, chapter, failed, cells)
