"""The ``bssim`` command: one module per command. Nothing heavy is imported before it is needed.

To add a command, write ``cli/NAME.py`` with a function and add its name to `_COMMANDS` (or to a
group).
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from bssim import __version__
from bssim.errors import InputError
from bssim.experiments.cli.calibrate import calibrate
from bssim.experiments.cli.compare import compare
from bssim.experiments.cli.costs import costs
from bssim.experiments.cli.help import Command
from bssim.experiments.cli.lists import engines, hardware, models, schedulers, support
from bssim.experiments.cli.plan import plan
from bssim.experiments.cli.plot import plot
from bssim.experiments.cli.replay import replay, validate
from bssim.experiments.cli.report import report
from bssim.experiments.cli.reproduce import reproduce
from bssim.experiments.cli.restore import restore
from bssim.experiments.cli.run import run
from bssim.experiments.cli.signals import INTERRUPTED, SignalsEnd
from bssim.experiments.cli.simulate import simulate
from bssim.experiments.cli.sweep import sweep
from bssim.experiments.cli.workload import convert, describe

_COMMANDS = (
    *(sweep, simulate, compare, plan, run, restore),
    *(replay, validate, calibrate, costs, plot, report, reproduce),
    *(models, hardware, schedulers, engines, support),
)

app = typer.Typer(
    help="Which order of offline LLM requests is fastest, and by how much?",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in _COMMANDS:
    app.command(cls=Command)(_command)

_workload = typer.Typer(
    help="Look at request pools, and convert them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
_workload.command(cls=Command)(describe)
_workload.command(cls=Command)(convert)
app.add_typer(_workload, name="workload")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bssim {__version__}")
        raise typer.Exit


def _help_alone(context: typer.Context) -> None:
    """Print the help if no command is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_workload.callback()(_help_alone)


@app.callback()
def _options(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    _help_alone(context)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exit status: 0 for success, 1 if a cell failed, 2 for wrong input (one line on stderr says where
    and what was expected), 130 after Ctrl-C, 143 after SIGTERM, which ends a command in the same
    way. A reader that stops early, such as ``head``, is not an error.
    """
    signals = SignalsEnd()
    try:
        with signals:
            _run(arguments, signals)
    except KeyboardInterrupt:  # at the very start or end
        _end_interrupted(signals)
    except Exception:
        if not signals.happened:
            raise
        _end_interrupted(signals)  # a library turned KeyboardInterrupt into another exception


def _end_interrupted(signals: SignalsEnd) -> NoReturn:
    typer.echo("interrupted", err=True)
    sys.exit(signals.status)


def _run(arguments: Sequence[str] | None, signals: SignalsEnd) -> None:
    """Run the command line and raise SystemExit with its status."""
    stdout = sys.stdout
    try:
        app(args=None if arguments is None else list(arguments), prog_name="bssim")
    except SystemExit as end:
        if sys.stdout is not stdout:  # Typer replaces stdout once its reader has closed it
            sys.exit(0)
        if end.code != INTERRUPTED:
            raise
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            typer.echo("interrupted", err=True)  # the command itself did not catch it
        sys.exit(signals.status)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(signals.status if signals.happened else 2)
    except MemoryError as error:
        message = f"error: out of memory: {error}; expected a smaller --num-requests"
        typer.echo(message, err=True)
        sys.exit(2)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        typer.echo(f"error: {where}{error.strerror or error}", err=True)
        sys.exit(2)
