"""``bssim report``: one HTML file with all that a results folder says."""

from pathlib import Path
from typing import Annotated

import typer

from bssim.experiments.cli.options import Json, Quiet, require_suffix, require_writable
from bssim.experiments.cli.terminal import say


def report(
    results: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="A results folder that `bssim sweep` wrote.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The file. [default: RESULTS/report.html]")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML file with the results of a sweep.

    It has the answer, charts, cells, steps and sources. It needs bssim[report] to write, and
    nothing but a browser to read, offline too.

    \b
    Example:
      bssim report results/quickstart
    """
    from bssim.experiments.report import write_report
    from bssim.experiments.sweeps import Results

    path = out or results / "report.html"
    require_suffix(path, "--out", ".html")
    found = Results(results)
    found.read_runs()  # names a wrong folder before the file in it
    require_writable(path, "--out")
    write_report(found, path)
    say(f"{path}: {path.stat().st_size / 1e6:.1f} MB", quiet)
    if json:
        from json import dumps

        typer.echo(dumps(str(path)))
    else:
        typer.echo(str(path))
