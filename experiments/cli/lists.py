"""``bssim models``, ``hardware``, ``schedulers``, ``engines``: the names that options accept."""

from collections.abc import Iterable

import typer

from bssim.experiments.cli.options import Json


def models(json: Json = False) -> None:
    """List the built-in models.

    \b
    Example:
      bssim models
    """
    from bssim.cost_models.llm.config import known_llms

    _print(known_llms(), json)


def hardware(json: Json = False) -> None:
    """List the built-in GPUs.

    \b
    Example:
      bssim hardware --json
    """
    from bssim.cost_models.hardware import known_hardware

    _print(known_hardware(), json)


def schedulers(json: Json = False) -> None:
    """List the schedulers.

    \b
    Example:
      bssim schedulers
    """
    from bssim.sim.schedulers.registry import scheduler_names

    _print(scheduler_names(), json)


def engines(json: Json = False) -> None:
    """List the engine presets.

    \b
    Example:
      bssim engines
    """
    from bssim.sim.engine.config import preset_names

    _print(preset_names(), json)


def _print(names: Iterable[str], json: bool) -> None:
    if json:
        from json import dumps

        typer.echo(dumps(list(names)))
    else:
        for name in names:
            typer.echo(name)
