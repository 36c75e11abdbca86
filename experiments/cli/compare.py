"""``bssim compare``: simulate every order of a batch on your engine and recommend one."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bssim.experiments.cli import options
from bssim.experiments.cli.groups import grouped
from bssim.experiments.cli.terminal import request_progress, say, say_notes, table_width, wrapped

if TYPE_CHECKING:
    from bssim.experiments.batch import Comparison

FULL_WIDTH = 120
"""Columns of the whole table, for a pipe or a file."""


@grouped
def compare(
    workload: Annotated[
        str, typer.Argument(metavar="FILE|NAME", help="Batch file, trace file or built-in name.")
    ],
    serving: options.ServingOptions,
    batch: options.BatchOptions,
    scheduler: Annotated[
        list[str] | None,
        typer.Option(
            "--scheduler",
            "-s",
            metavar="NAME",
            help="Try only this order; repeatable. [default: all]",
            autocompletion=options.complete_scheduler,
        ),
    ] = None,
    num_requests: options.NumRequests = None,
    price_per_gpu_hour: Annotated[
        float | None,
        typer.Option("--price-per-gpu-hour", min=0.0, help="Price of a GPU-hour, in dollars."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Picture to draw, .png and .pdf.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Simulate every order of a batch and recommend one.

    Each order is simulated as a *file* that a stock engine serves and, if bssim can choose the next
    request while it runs (`bssim run`), at *run time*. The last line is the verdict.

    \b
    Example:
      bssim compare batch.jsonl --hardware h100-sxm --price-per-gpu-hour 2.50
      bssim compare batch.jsonl -s dfs --json
    """
    from bssim.experiments.batch import DEFAULT_SCHEDULERS, compare_pool, open_pool

    options.require_picture(figure)
    machine = serving.serving()
    pool = open_pool(
        workload,
        machine,
        tokenizer=batch.tokenizer,
        lengths=batch.lengths,
        lengths_batch=batch.lengths_batch,
        default_output_tokens=batch.default_output_tokens,
        num_requests=num_requests,
        on_unsupported=batch.on_unsupported,
    )
    with request_progress(quiet, "simulations") as progress:
        found = compare_pool(
            pool,
            machine,
            scheduler or DEFAULT_SCHEDULERS,
            price_per_gpu_hour=price_per_gpu_hour,
            progress=progress,
        )
    if figure is not None:
        from bssim.experiments.plots import comparison_figure, save

        for path in save(comparison_figure(found), figure.with_suffix("")):
            say(f"wrote {path}", quiet)
    if json:
        from json import dumps

        typer.echo(dumps(found.as_json()))
    else:
        _print(found, quiet)


def _print(found: "Comparison", quiet: bool) -> None:
    """Print the assumptions and notes on stderr, then the table and the verdict."""
    from rich.console import Console

    from bssim.experiments.batch import assumption_lines, comparison_table

    for line in assumption_lines(found.assumed):
        say(line, quiet)
    say_notes(found.notes, found.name, quiet)
    for warning in found.warnings:
        say(f"warning: {warning}")
    width = table_width()
    console = Console(width=width or FULL_WIDTH, highlight=False)
    console.print(comparison_table(found, width))
    for text in filter(None, (found.sampling, found.robustness, found.verdict)):
        typer.echo(wrapped(text, sys.stdout))
