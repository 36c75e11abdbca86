"""``bssim reproduce``: recompute the paper's figures and tables and compare its numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bssim.errors import InputError
from bssim.experiments.cli.options import Json, Quiet, require_jobs, require_suffix
from bssim.experiments.cli.terminal import SweepProgress, say

if TYPE_CHECKING:
    from bssim.experiments.result_pages import Finished


def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="fig7a, table3, ..., `all`, `ratio` or `published`."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Run the whole grids where the default is a part.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of results.")] = Path("results"),
    page: Annotated[
        Path | None,
        typer.Option(
            "--page",
            help="Write the Markdown page here. [default: docs/reproduction.md for `all`, "
            "docs/evidence.md for `ratio`, docs/published.md for `published`, no page for single "
            "studies]",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Cells at once; -1: all cores.")] = -1,
    num_requests: Annotated[
        int | None,
        typer.Option(
            "--num-requests",
            "-n",
            min=1,
            help="Requests per cell, for a trial. Studies without a sweep keep their own number.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Recompute figures and tables of the paper.

    They are printed beside the paper's numbers. The sweep files in configs/paper/ write into OUT/;
    run the command again to resume. `all` writes docs/reproduction.md with its figures. Named
    studies print their claims and draw into OUT/reproduce/figures/. `ratio` does the same for
    bssim's own scheduler, with configs/ratio/ and docs/evidence.md. Exit status 0: all cells ran.

    \b
    Example:
      bssim reproduce table1
      bssim reproduce fig14 --num-requests 300
    """
    from bssim.experiments.result_pages import (
        InterruptedStudyError,
        chosen,
        run_studies,
        write_page,
    )

    require_jobs(jobs)
    names = _some_names(names)
    require_suffix(page, "--page", ".md")
    studies, kind, whole = chosen(names)
    try:
        finished = run_studies(
            studies,
            out,
            full=full,
            num_requests=num_requests,
            jobs=jobs,
            watch=lambda name: SweepProgress(name, quiet),
        )
        target = page or (_own_page(kind.path, out, num_requests) if whole else None)
        if target is not None:
            write_page(target, kind, finished, num_requests)
            say(f"wrote {target}", quiet)
        else:
            _save_figures(out / "reproduce" / "figures", finished, quiet)
    except (InterruptedStudyError, KeyboardInterrupt):
        say("interrupted: finished cells are kept; run the same command again to resume")
        raise typer.Exit(130) from None
    if json:
        _dump_claims(finished)
    elif target is None:
        _print_claims(finished, kind.reference)
    if failed := sum(len(one.failed) for one in finished):
        say(f"{failed} cells failed; their chapters say which")
        raise typer.Exit(1)


def _some_names(names: list[str] | None) -> list[str]:
    from bssim.experiments.result_pages import PAGES, study_names

    if not names:
        known = ", ".join(dict.fromkeys([*PAGES, *study_names()]))
        raise InputError("reproduce", "no name", f"at least one of: {known}")
    return names


def _own_page(page: Path, out: Path, num_requests: int | None) -> Path:
    """Return where a whole page goes: a trial must not overwrite it."""
    return out / "reproduce" / page.name if num_requests else page


def _save_figures(folder: Path, finished: "Sequence[Finished]", quiet: bool) -> None:
    from bssim.experiments.result_pages import save_figures

    drawn = save_figures(folder, finished)
    say(f"{len(drawn)} figures in {folder}/", quiet or not drawn)


def _dump_claims(finished: "Sequence[Finished]") -> None:
    """Print all claims as one JSON list."""
    from json import dumps

    claims = [claim.as_json() for one in finished for claim in one.chapter.claims]
    typer.echo(dumps(claims, allow_nan=False))


def _print_claims(finished: "Sequence[Finished]", reference: str) -> None:
    """Print one table of claims per study; ``reference`` heads the column to compare with."""
    import sys

    from rich.console import Console
    from rich.table import Table

    from bssim.experiments.result_pages import shown, verdict

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    for one in finished:
        table = Table(title=one.study.title, title_justify="left")
        for heading in ("id", "what", reference, "ours", "ratio", "holds", "note"):
            number = heading in (reference, "ours", "ratio")
            table.add_column(heading, justify="right" if number else "left", overflow="fold")
        for claim in one.chapter.claims:
            numbers = (shown(claim.paper), shown(claim.ours), shown(claim.ratio))
            state = verdict(claim).strip("*")
            table.add_row(claim.id, claim.what, *numbers, state, claim.note)
        console.print(table)
        for row in one.failed.itertuples():
            console.print(f"no result: {row.config}: {row.workload}, {row.scheduler}: {row.error}")
