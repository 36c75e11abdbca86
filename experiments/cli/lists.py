"""``bssim models``, ``hardware``, ``schedulers``, ``engines``: the names that options accept."""

from collections.abc import Iterable

import typer

from bssim.experiments.cli.options import Json


def models(json: Json = False) -> None:
    """List the built-in models: parameters, precision, GB of weights, KV bytes per token.

    With --json, print only their names.

    \b
    Example:
      bssim models
    """
    from bssim.cost_models.llm import known_llms, load_llm

    if json:
        _print(known_llms(), json)
        return
    rows = [("model", "parameters", "precision", "weights", "KV per token")]
    for name in known_llms():
        llm = load_llm(name)
        size, kv = llm.weight_bytes / 1e9, llm.kv_bytes_per_token
        rows.append(
            (
                name,
                f"{llm.num_params / 1e9:.2f} B",
                llm.precision.label,
                f"{size:.1f} GB",
                f"{kv:,} B",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *facts in rows:
        cells = [fact.rjust(width) for fact, width in zip(facts, widths[1:], strict=True)]
        typer.echo("  ".join([name.ljust(widths[0]), *cells]))


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
