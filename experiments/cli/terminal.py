"""Progress and notes on stderr; stdout is only for results."""

import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from bssim.wording import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from bssim.experiments.perfetto import Trace
    from bssim.experiments.sweeps import Cell


def say(message: str, quiet: bool = False, *, wrap: bool = True) -> None:
    """Print a message on stderr.

    On a terminal, long lines are wrapped between words; pass ``wrap=False`` for a line to copy.
    """
    if not quiet:
        typer.echo(wrapped(message, sys.stderr, indent="  ") if wrap else message, err=True)


def wrapped(text: str, stream: TextIO, indent: str = "") -> str:
    """Return ``text`` with its lines wrapped between words if ``stream`` is a terminal."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        if len(line) > width
        else line
        for line in text.split("\n")
    )


def table_width() -> int | None:
    """Return the columns that a table on stdout may take; None if stdout is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def say_notes(notes: Iterable[str], workload: str, quiet: bool) -> None:
    """Print notes; those about the whole ``workload`` without its name, which is clear here."""
    for note in notes:
        say(f"note: {note.removeprefix(f'{workload}: ')}", quiet)


def say_trace(path: Path, trace: "Trace", quiet: bool) -> None:
    """Print what a trace file shows."""
    rows = "every step" if trace.slice_s is None else f"slices of {trace.slice_s:g} s"
    say(f"wrote {path} ({rows}): open it at https://ui.perfetto.dev", quiet)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=Console(stderr=True),
    )


@contextmanager
def request_progress(
    quiet: bool, what: str = "requests"
) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback (finished, total) that moves a bar of ``what``; None without a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with _bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda finished, total: bar.update(task, completed=finished, total=total)


class SweepProgress:
    """A bar with the time left on a terminal; one line per finished cell elsewhere."""

    def __init__(self, name: str, quiet: bool, labels: "Mapping[str, str] | None" = None) -> None:
        """``labels`` maps the config_hash of each cell to its name in a line of progress."""
        self.name, self.quiet = name, quiet
        self._labels = labels or {}
        self.done = self.total = 0
        self.began = time.monotonic()
        self.bar = None if quiet or not sys.stderr.isatty() else _bar()

    def __enter__(self) -> "SweepProgress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def start(self, due: int, reused: int) -> None:
        """Print how many cells will run and how many finished earlier."""
        self.total = due
        kept = f" ({reused} finished earlier)" if reused else ""
        say(f"{self.name}: {counted(due, 'cell')} to run{kept}", self.quiet)
        if self.bar is not None and due:
            self.bar.add_task(self.name, total=due)
            self.bar.start()

    def finished(self, cell: "Cell", row: dict[str, Any]) -> None:
        """Show a finished cell."""
        self.done += 1
        if row["status"] == "ok":
            text = (
                f"{row['throughput_tok_s']:,.0f} tokens/s, {row['share_of_bound']:.1%} of the bound"
            )
        else:
            text = f"{row['status']}: {row['error']}"
        label = self._labels.get(cell.config_hash, f"{cell.workload.label} {cell.scheduler}")
        line = f"{label}: {text}"
        if self.bar is None:
            elapsed = time.monotonic() - self.began
            quiet = self.quiet and row["status"] == "ok"  # --quiet does not hide errors
            say(f"[{self.done}/{self.total}, {elapsed:.0f} s] {line}", quiet)
        else:
            self.bar.advance(self.bar.task_ids[0])
            self.bar.console.print(line, highlight=False, markup=False)
