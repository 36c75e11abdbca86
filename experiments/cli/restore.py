"""``bssim restore``: put results back in the order of the input."""

from pathlib import Path
from typing import Annotated

import typer

from bssim.errors import InputError
from bssim.experiments.cli import options
from bssim.experiments.cli.terminal import say
from bssim.wording import counted

SHOWN = 5
"""At most this many ids per kind are printed; ``--json`` has all of them."""


def restore(
    batch: Annotated[
        Path,
        typer.Argument(metavar="BATCH", help="The batch file that was the input of `bssim plan`."),
    ],
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULTS", help="One output file, or one per shard.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File to write; - is stdout, .gz is compressed.")
    ],
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put results back into the order of the batch file.

    The results may be in one or more files. Rows are matched by custom_id. Missing, duplicate,
    failed and unknown ids are listed. The exit status is 1 if any row is missing or failed.

    \b
    Example:
      bssim restore batch.jsonl results.jsonl -o restored.jsonl
    """
    from bssim.experiments.batch import STDOUT
    from bssim.experiments.batch import restore as restore_results

    if out == STDOUT and json:
        raise InputError("--json", "it beside --out -", "one of them: both write to stdout")
    if out != STDOUT:
        options.require_writable(out, "--out")
        for file in (batch, *results):
            options.require_distinct((("--out", out),), file, "a file that is read")
    found = restore_results(batch, results, out)
    for kind in ("missing", "duplicate", "failed", "unknown"):
        ids = getattr(found, kind)
        if ids:
            shown = ", ".join(ids[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")
            say(f"{kind}: {len(ids):,} ({shown})")
    if json:
        from json import dumps

        typer.echo(dumps(found.as_json()))
    else:
        errors = f", {len(found.failed):,} of them errors" if found.failed else ""
        total = counted(found.num_requests, "result")
        say(f"wrote {found.written:,} of {total} to {out}{errors}", quiet)
    if found.missing or found.failed:
        raise typer.Exit(1)
