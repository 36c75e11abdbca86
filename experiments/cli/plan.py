"""``bssim plan``: put the lines of an OpenAI batch file into the best order."""

from pathlib import Path
from typing import Annotated

import typer

from bssim.errors import InputError
from bssim.experiments.cli import options
from bssim.experiments.cli.groups import grouped
from bssim.experiments.cli.terminal import request_progress, say, say_notes
from bssim.wording import counted


@grouped
def plan(
    batch: Annotated[Path, typer.Argument(metavar="BATCH", help="OpenAI batch file (JSON lines).")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write; - is stdout, .gz is compressed.")
    ],
    serving: options.ServingOptions,
    reading: options.BatchOptions,
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler",
            "-s",
            help="auto (the best order) or a name from `bssim schedulers`.",
            autocompletion=options.complete_scheduler,
        ),
    ] = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the lines of a batch in the fastest order found.

    It may be the order of the input. For engines that serve a file from the first line to the last,
    such as `vllm run-batch` or Ray Data. In simulation, the written file is never slower than the
    input. It has every line of the batch exactly once, byte for byte; lines without a plan come
    last. With --dp N there is one file per replica: part.0.jsonl, part.1.jsonl, ... `bssim restore`
    puts results back in input order.

    \b
    Example:
      bssim plan batch.jsonl -o ordered.jsonl
      bssim plan batch.jsonl -o part.jsonl -m llama-3-70b --tp 4 --dp 2
    """
    from bssim.experiments.batch import STDOUT, part_names, write_plan

    if batch.exists() and not (batch.is_file() or batch.is_dir()):
        raise InputError("BATCH", f"{str(batch)!r}, a pipe or device", "a file: it is read twice")
    if out == STDOUT and json:
        raise InputError("--json", "it beside --out -", "one of them: both write to stdout")
    files = part_names(out, serving.dp)
    if out != STDOUT:
        for file in files:
            options.require_writable(file, "--out")
        options.require_distinct(
            (("--out", file) for file in files), batch, "the batch file itself"
        )
    with request_progress(quiet, "simulations") as progress:
        written = write_plan(
            batch,
            out,
            serving.serving(),
            scheduler,
            tokenizer=reading.tokenizer,
            lengths=reading.lengths,
            lengths_batch=reading.lengths_batch,
            default_output_tokens=reading.default_output_tokens,
            on_unsupported=reading.on_unsupported,
            progress=progress,
        )
    from bssim.experiments.batch import assumption_lines

    for line in assumption_lines(written.comparison.assumed):
        say(line, quiet)
    say_notes(written.comparison.notes, written.comparison.name, quiet)
    for warning in written.warnings:
        say(f"warning: {warning}")
    if json:
        from json import dumps

        typer.echo(dumps({**written.as_json(), "out": str(out)}))
        return
    say(written.summary, quiet)
    unplanned = written.num_requests - written.planned
    rest = f", {counted(unplanned, 'line')} of them unplanned, at the end" if unplanned else ""
    names = ", ".join("stdout" if file == STDOUT else str(file) for file in files)
    say(f"wrote {counted(written.num_requests, 'request')} to {names}{rest}", quiet)
    if len(written.commands) > 1:
        say("run all of these at the same time, on machines with 8 GPUs:", quiet)
    for command in written.commands:
        say(f"run: {command}", quiet, wrap=False)
