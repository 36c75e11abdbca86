"""``bssim sweep``: run every cell of sweep files."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bssim.errors import InputError
from bssim.experiments.cli.options import Json, Quiet, require_jobs
from bssim.experiments.cli.terminal import SweepProgress, say, table_width, wrapped
from bssim.wording import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bssim.experiments.sweeps import Cell, Results, Shard, SweepFile, SweepOutcome


def sweep(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG", help="Sweep files (YAML).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of results.")] = Path("results"),
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Parallel cells; -1: all cores.")] = -1,
    backend: Annotated[str, typer.Option(help="loky (this machine) or ray (a cluster).")] = "loky",
    num_requests: Annotated[
        int | None,
        typer.Option("--num-requests", "-n", min=1, help="Instead of the number in the files."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(
            help="I/N: run part I (from 0) of N; then run the command without it for the tables."
        ),
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw the figures when all cells are done.")] = True,
    report: Annotated[
        bool, typer.Option("--report", help="Write report.html, to read and to share.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the files and list the cells; run nothing.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run every cell of the sweep files in parallel.

    The same command resumes where an earlier run stopped. For each file it writes runs.csv,
    runs.parquet, summary.md and figures/ into OUT/NAME/. The exit status is 0 only if every cell
    succeeds. Ctrl-C keeps the finished cells.

    \b
    Example:
      bssim sweep configs/quickstart.yaml
      bssim sweep configs/*.yaml --out results --jobs 2
    """
    from json import dumps

    from bssim.experiments.sweeps import Results, Shard, expand, read_sweep_file, records

    require_jobs(jobs)
    part = None if shard is None else Shard.parse(shard)
    written = ["figures/"] if figures else []
    if report:
        from bssim.experiments.report import require_packages

        require_packages()
        written.append("report.html")
    files = [read_sweep_file(path, num_requests=num_requests) for path in configs]
    _check_names(files)
    # Check every file completely before the first cell runs.
    grids = [expand(file) for file in files]
    if dry_run:
        own = [cells if part is None else part.of(cells) for cells in grids]
        _list_cells({file.name: cells for file, cells in zip(files, own, strict=True)}, json)
        done = sum(
            _finished_earlier(Results(out / file.name), file, cells, mine)
            for file, cells, mine in zip(files, grids, own, strict=True)
        )
        _say_due(sum(map(len, own)), done, quiet)
        return
    rows: list[dict[str, object]] = []
    interrupted = False
    for file, cells in zip(files, grids, strict=True):
        results = Results(out / file.name)
        outcome = _run(file, cells, results, part, jobs, backend, quiet)
        rows += records(outcome.runs)
        interrupted = outcome.interrupted
        if interrupted:
            break
        if part is not None:
            _say_part(file.name, part, outcome, quiet)
            continue
        _show(file, outcome, results, written, quiet)
        if not json:
            _answer(outcome, results)
    if json:
        typer.echo(dumps(rows))
    _exit(interrupted, rows)


def _run(
    file: "SweepFile",
    cells: "Sequence[Cell]",
    results: "Results",
    part: "Shard | None",
    jobs: int,
    backend: str,
    quiet: bool,
) -> "SweepOutcome":
    from bssim.experiments.sweeps import cell_labels, run_sweep

    with SweepProgress(file.name, quiet, cell_labels(cells)) as progress:
        return run_sweep(
            cells,
            results,
            timeline=file.config.timeline,
            jobs=jobs,
            backend=backend,
            shard=part,
            progress=progress,
        )


def _show(
    file: "SweepFile", outcome: "SweepOutcome", results: "Results", written: list[str], quiet: bool
) -> None:
    """Write the files beside runs.csv that ``written`` names, and say how the sweep ended."""
    from bssim.experiments.report import write_report
    from bssim.experiments.sweeps import TIMELINE_CELLS

    cells = len(outcome.runs)
    if "figures/" in written and outcome.count("ok"):
        if file.config.timeline is None and cells > TIMELINE_CELLS:
            say(
                f"note: {file.name}: no figures of steps: more than {TIMELINE_CELLS} cells; "
                "`timeline: true` in the file keeps what they need",
                quiet,
            )
        _draw(results, quiet)
    if "report.html" in written:
        write_report(results, results.folder / "report.html")
    failed, total = outcome.count("failed"), counted(cells, "cell")
    state = f"{failed} of {total} failed" if failed else f"{total} ok"
    names = ", ".join(["summary.md", "runs.csv", *written])
    say(f"{file.name}: {state}; see {results.folder}/: {names}", quiet and not failed)


def _answer(outcome: "SweepOutcome", results: "Results") -> None:
    """Print the fastest order of every setting and workload, then the conclusion."""
    from bssim.experiments.sweeps import (
        conclusion,
        tail_sentence,
        winners_markdown,
        winners_of,
        winners_table,
    )

    table = winners_of(outcome.runs, results.setting_labels(outcome.runs))
    if len(table) and (width := table_width()) is not None:
        from rich.console import Console

        Console(width=width, highlight=False).print(winners_table(table, width))
    elif len(table):
        typer.echo("\n".join([*winners_markdown(table), ""]))
    if tail := tail_sentence(table):
        typer.echo(f"{wrapped(tail, sys.stdout)}\n")
    typer.echo(wrapped(conclusion(table), sys.stdout))


def _finished_earlier(
    results: "Results", file: "SweepFile", cells: "Sequence[Cell]", own: "Sequence[Cell]"
) -> int:
    """Return how many of its ``own`` cells a sweep of ``cells`` would not run again."""
    from bssim.experiments.sweeps import keeps_timelines

    keep = keeps_timelines(cells, file.config.timeline)
    return sum(results.is_done(cell, keep) for cell in own)


def _say_due(cells: int, done: int, quiet: bool) -> None:
    """Say what a sweep would run, after a dry run."""
    kept = f" ({done:,} finished earlier)" if done else ""
    due = counted(cells - done, "cell")
    say(f"{due} to run{kept}; to start, repeat the command without --dry-run", quiet)


def _exit(interrupted: bool, rows: "Sequence[Mapping[str, object]]") -> None:
    """End the command with its exit status unless every cell succeeded."""
    if interrupted:
        say("interrupted: finished cells are kept; run the same command again to resume")
        raise typer.Exit(130)
    if any(row["status"] != "ok" for row in rows):
        raise typer.Exit(1)


def _say_part(name: str, part: "Shard", outcome: "SweepOutcome", quiet: bool) -> None:
    failed, total = outcome.count("failed"), counted(len(outcome.runs), "cell")
    state = f"{failed} of {total} failed" if failed else f"{total} ok"
    then = "when all parts have ended, run the command without --shard"
    say(f"{name}, part {part.index}/{part.count}: {state}; {then}", quiet and not failed)


def _check_names(files: "Sequence[SweepFile]") -> None:
    """Raise InputError if two files have one name, because it names their results folder."""
    names = [file.name for file in files]
    for file in files:
        if names.count(file.name) > 1:
            raise InputError.saying(
                file.path,
                f"name {file.name!r} is taken by another file of this sweep",
                "a `name:` of its own",
            )


def _draw(results: "Results", quiet: bool) -> None:
    from bssim.experiments.plots import draw_figures

    say("drawing figures", quiet)
    draw_figures(results)


def _list_cells(grids: "dict[str, list[Cell]]", json: bool) -> None:
    """Print the cells of every sweep with the names that a run uses."""
    from bssim.experiments.sweeps import cell_labels, swept_columns

    if json:
        from json import dumps

        extra = {name: swept_columns(cells) for name, cells in grids.items()}
        rows = [
            cell.identity() | extra[name][cell.config_hash]
            for name, cells in grids.items()
            for cell in cells
        ]
        typer.echo(dumps(rows))
        return
    for name, cells in grids.items():
        typer.echo(f"{name}: {counted(len(cells), 'cell')}")
        for label in cell_labels(cells).values():
            typer.echo(f"  {label}")
