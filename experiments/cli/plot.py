"""``bssim plot``: draw the figures of finished sweeps again."""

from pathlib import Path
from typing import Annotated

import typer

from bssim.experiments.cli.options import Json, Quiet
from bssim.experiments.cli.terminal import say


def plot(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS", help="Results folders that `bssim sweep` wrote."),
    ],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw the figures of results folders again.

    They are drawn from runs.csv and the kept timelines.

    \b
    Example:
      bssim plot results/quickstart
    """
    from bssim.experiments.plots import draw_figures
    from bssim.experiments.sweeps import Results

    drawn: list[str] = []
    for folder in results:
        say(f"drawing {folder}", quiet)
        drawn += [str(path) for path in draw_figures(Results(folder))]
    if json:
        from json import dumps

        typer.echo(dumps(drawn))
    else:
        for path in drawn:
            typer.echo(path)
