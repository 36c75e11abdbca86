"""The results folder: one JSON file per finished cell, runs.csv, runs.parquet, timelines, summary.

``cells/HASH.json`` is the record; everything else is derived from the cells.
"""

import fcntl
import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from bssim.errors import InputError
from bssim.experiments.sweeps.axes import SPLIT, setting_label, varied_settings
from bssim.experiments.sweeps.cell import Cell
from bssim.experiments.sweeps.checks import WRITTEN, check_runs, is_sound, read_timeline
from bssim.experiments.sweeps.row import COLUMN_TYPES, COLUMNS, REQUIRED_COLUMNS, failed_row
from bssim.experiments.sweeps.run_cell import CellOutcome
from bssim.experiments.sweeps.summary import summary_markdown
from bssim.experiments.sweeps.swept import swept_columns
from bssim.whole_file import replacing

IN_COLUMNS = ("llm.name", "hardware.name", "engine.name", "engine.overlap", SPLIT)
"""Inputs that the label of every setting already contains."""


class Rows(NamedTuple):
    """The rows of a sweep, and the notes on its workloads and planners."""

    runs: pd.DataFrame
    notes: dict[str, list[str]]


@dataclass(frozen=True)
class Results:
    """The results folder of one sweep."""

    folder: Path

    def cell_path(self, config_hash: str) -> Path:
        """Return the path of a cell's record."""
        return self.folder / "cells" / f"{config_hash}.json"

    def timeline_path(self, config_hash: str) -> Path:
        """Return the path of a cell's downsampled timeline."""
        return self.folder / "cells" / f"{config_hash}.timeline.parquet"

    def save(self, cell: Cell, outcome: CellOutcome) -> None:
        """Write a finished cell; a reader never sees a partial record."""
        if outcome.timeline is not None:
            path = self.timeline_path(cell.config_hash)
            with _replacing(path) as part:
                outcome.timeline.to_parquet(part)
        record = {
            "inputs": cell.inputs(),
            "workload_notes": outcome.workload_notes,
            "planner_notes": outcome.planner_notes,
            "busy": outcome.busy,
            "row": outcome.row,
        }
        write_text(self.cell_path(cell.config_hash), json.dumps(record, indent=1) + "\n")

    def record(self, config_hash: str) -> dict[str, Any] | None:
        """Return a cell's record, or None if there is no readable one."""
        try:
            record: dict[str, Any] = json.loads(self.cell_path(config_hash).read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return record if is_sound(record, config_hash) else None

    def is_done(self, cell: Cell, timeline: bool) -> bool:
        """Return whether a cell is done: it ended ok, and has a timeline if one is required."""
        record = self.record(cell.config_hash)
        if record is None or record["row"]["status"] != "ok":
            return False
        return not timeline or self.timeline_path(cell.config_hash).exists()

    @contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """Keep other sweeps out of the folder; ``shared`` lets in others that are shared too.

        A lock ends with its process. A file system without locks has none: cells are still written
        whole, but two sweeps may both run a cell. Raises InputError if the folder is in use.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as file:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError.saying(
                    self.folder, "another sweep is writing it", "its end, or another --out"
                ) from None
            except OSError:
                pass
            else:
                if not shared:  # what killed sweeps left half written; no other one is running
                    for part in (*self.folder.glob(".*.tmp"), *self.folder.glob("cells/.*.tmp")):
                        part.unlink(missing_ok=True)
            yield

    def rows(self, cells: Iterable[Cell]) -> "Rows":
        """Read the rows of ``cells``, in their order; a cell without a record is ``skipped``."""
        rows: list[dict[str, Any]] = []
        notes: dict[str, list[str]] = {}
        known = list(cells)
        swept = swept_columns(known)
        for cell in known:
            extra = swept[cell.config_hash]
            record = self.record(cell.config_hash)
            if record is None:
                why = "not run: the sweep was interrupted"
                rows.append(failed_row(cell.identity(), why, "skipped") | extra)
                continue
            # A sweep with another name, or another label, may have run the same cell, and an
            # earlier version of bssim may have written fewer columns.
            rows.append(cell.identity() | record["row"] | {"config": cell.config} | extra)
            workload, scheduler = cell.workload.label, cell.scheduler
            notes.setdefault(f"`{workload}`", record["workload_notes"])
            notes.setdefault(f"`{workload}` / `{scheduler}`", record["planner_notes"])
        return Rows(as_frame(rows), notes)

    def write_runs(self, cells: Iterable[Cell]) -> pd.DataFrame:
        """Write runs.csv, runs.parquet and summary.md for ``cells``, in their order."""
        runs, notes = self.rows(cells)
        with _replacing(self.folder / "runs.csv") as part:
            runs.to_csv(part, index=False, lineterminator="\n")
        with _replacing(self.folder / "runs.parquet") as part:
            runs.to_parquet(part, index=False)
        labels = self.setting_labels(runs)
        write_text(self.folder / "summary.md", summary_markdown(runs, labels, notes))
        return runs

    def setting_labels(self, runs: pd.DataFrame) -> dict[str, str]:
        """Return the setting of each config_hash in words: model, hardware, engine, swept knobs."""
        varied = varied_settings(self.inputs(runs))
        labels = {}
        for row in runs.to_dict("records"):
            key = row["config_hash"]
            common = (
                f"{row['model']} on {row['hardware']}, {row['engine']}, {row['overlap']} overlap"
            )
            knobs = varied.loc[key].to_dict() if key in varied.index else {}
            extra = setting_label({k: v for k, v in knobs.items() if k not in IN_COLUMNS})
            labels[key] = f"{common}, {extra}" if extra else common
        return labels

    def read_runs(self) -> pd.DataFrame:
        """Read runs.csv; raises InputError if it is missing or not a table of runs."""
        path = self.folder / "runs.csv"
        if not path.is_file():
            raise InputError(self.folder, "no runs.csv", "the results folder of a sweep")
        try:
            text = pd.read_csv(path, dtype="string", keep_default_na=False, na_values=[])
            missing = [column for column in REQUIRED_COLUMNS if column not in text.columns]
            if missing:
                raise InputError.saying(
                    path, f"column {missing[0]!r} is missing", str(REQUIRED_COLUMNS)
                )
            rows = ({str(k): v for k, v in row.items()} for row in text.to_dict("records"))
            runs = as_frame(rows)
        except (ValueError, TypeError, OverflowError) as error:  # of pandas
            if isinstance(error, InputError):
                raise
            raise InputError.saying(path, " ".join(str(error).split()), WRITTEN) from error
        check_runs(path, runs)
        return runs

    def timelines(self, runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
        """Return the kept timelines of ``runs`` by config_hash."""
        paths = {key: self.timeline_path(key) for key in runs["config_hash"]}
        return {key: read_timeline(path) for key, path in paths.items() if path.is_file()}

    def inputs(self, runs: pd.DataFrame) -> dict[str, dict[str, Any]]:
        """Return the resolved inputs of ``runs`` by config_hash, for those with a record."""
        records = {key: self.record(key) for key in runs["config_hash"]}
        return {key: record["inputs"] for key, record in records.items() if record is not None}


def as_frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as a table with the columns and types of runs.csv.

    Columns of swept fields follow the fixed columns. They are numbers if all their values are
    numbers, else text.
    """
    known = list(rows)
    extra = [c for c in dict.fromkeys(c for row in known for c in row) if c not in COLUMNS]
    frame = pd.DataFrame(known, columns=[*COLUMNS, *extra], dtype=object)
    frame = frame.where(frame.notna() & (frame != ""), None)
    for column in extra:
        frame[column] = _swept_values(frame[column])
    for column, kind in COLUMN_TYPES.items():
        values = frame[column]
        frame[column] = values.fillna("") if kind == "string" else pd.to_numeric(values)
    return frame.astype(COLUMN_TYPES)


def _swept_values(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return a swept field as numbers if all its values are numbers, else as text."""
    given = values.dropna()
    if not given.map(lambda value: isinstance(value, bool)).any():
        numbers = pd.to_numeric(values, errors="coerce")
        if numbers.notna().sum() == len(given):
            return numbers.convert_dtypes()
    return values.map(lambda value: "" if value is None else str(value)).astype("string")


def records(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain dictionaries for JSON, a missing value as None."""
    rows: list[dict[str, Any]] = json.loads(runs.to_json(orient="records", double_precision=15))
    return rows


def write_text(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    with _replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _replacing(path: Path) -> AbstractContextManager[Path]:
    """Yield a temporary path that replaces ``path`` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return replacing(path)
