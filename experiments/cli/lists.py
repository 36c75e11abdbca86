"""``bssim models``, ``hardware``, ``schedulers``, ``engines``, ``support``: what options accept."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from bssim.experiments.cli.options import Json, complete_hardware, complete_model


def models(json: Json = False) -> None:
    """List the built-in models with their sizes.

    Parameters, precision, GB of weights and KV bytes per token. With --json, print only their
    names.

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
        rows.append(
            (
                name,
                f"{llm.num_params / 1e9:.2f} B",
                llm.precision.label,
                f"{llm.weight_bytes / 1e9:.1f} GB",
                f"{llm.kv_bytes_per_token:,} B",
            )
        )
    _print_table(rows)


def hardware(json: Json = False) -> None:
    """List the built-in GPUs with their peaks.

    Memory, bandwidth of memory and of the link to other GPUs (one direction), and dense peaks of
    16-bit and 8-bit GEMMs. With --json, print only their names.

    \b
    Example:
      bssim hardware
    """
    from bssim.cost_models.hardware import known_hardware, load_hardware

    if json:
        _print(known_hardware(), json)
        return
    rows = [("hardware", "memory", "bandwidth", "link", "16-bit", "8-bit")]
    for name in known_hardware():
        gpu = load_hardware(name)
        eight = max(gpu.peak_flops.get(kind, 0.0) for kind in ("fp8", "int8"))
        rows.append(
            (
                name,
                f"{gpu.memory_bytes / 1e9:.0f} GB",
                f"{gpu.bandwidth / 1e12:.2f} TB/s",
                f"{gpu.link_bandwidth / 1e9:.0f} GB/s",
                f"{gpu.flops / 1e12:,.0f} TFLOP/s",
                f"{eight / 1e12:,.0f} TFLOP/s" if eight else "-",
            )
        )
    _print_table(rows)


def schedulers(json: Json = False) -> None:
    """List the schedulers, each with what it does.

    With --json, print only their names.

    \b
    Example:
      bssim schedulers
    """
    from bssim.sim.schedulers import ABOUT, scheduler_names

    if json:
        _print(scheduler_names(), json)
        return
    width = max(map(len, ABOUT))
    for name in scheduler_names():
        typer.echo(f"{name.ljust(width)}  {ABOUT[name]}")


def engines(json: Json = False) -> None:
    """List the engine presets with their limits.

    Most requests running and most tokens per step, tokens per KV block, how overlap is modelled,
    and whose host time and kernels are priced. With --json, print only their names.

    \b
    Example:
      bssim engines
    """
    from bssim.sim.engine import load_preset, preset_names

    if json:
        _print(preset_names(), json)
        return
    rows = [("engine", "requests", "tokens", "block", "overlap", "costs of")]
    for name in preset_names():
        engine = load_preset(name)
        requests, tokens = f"{engine.max_num_seqs:,}", f"{engine.max_num_batched_tokens:,}"
        block = str(engine.block_size)
        rows.append((name, requests, tokens, block, engine.overlap, engine.version))
    _print_table(rows)


def support(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            help="Model or file; repeatable. [default: all built-in]",
            autocompletion=complete_model,
        ),
    ] = None,
    hardware: Annotated[
        list[str] | None,
        typer.Option(
            "--hardware",
            metavar="NAME",
            help="GPU or file; repeatable. [default: all built-in]",
            autocompletion=complete_hardware,
        ),
    ] = None,
    quantization: Annotated[
        list[str] | None,
        typer.Option(
            "--quantization",
            metavar="NAME",
            help="Precision; repeatable. [default: each model's own]",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show which models fit which GPUs, and what is measured.

    For each model, precision and GPU: on how many GPUs the model fits, and whether the times of its
    operators were measured there or are extrapolated.

    \b
    Example:
      bssim support
      bssim support -m llama-3-70b --quantization fp8 --quantization none --json
    """
    from bssim.experiments.support import support as entries
    from bssim.experiments.support import support_table

    found = entries(model or (), hardware or (), quantization or (None,))
    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps([asdict(entry) for entry in found]))
    else:
        typer.echo(support_table(found))


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print a header and rows; the first column is text, the others are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *facts in rows:
        cells = [fact.rjust(width) for fact, width in zip(facts, widths[1:], strict=True)]
        typer.echo("  ".join([name.ljust(widths[0]), *cells]))


def _print(names: Iterable[str], json: bool) -> None:
    if json:
        from json import dumps

        typer.echo(dumps(list(names)))
    else:
        for name in names:
            typer.echo(name)
