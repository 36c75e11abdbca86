"""``bssim workload describe`` and ``bssim workload convert``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bssim.experiments.cli import options
from bssim.experiments.cli.groups import grouped
from bssim.experiments.cli.terminal import request_progress, say, say_notes
from bssim.wording import counted

Source = Annotated[str, typer.Argument(metavar="FILE|NAME", help="Trace file or built-in name.")]


@grouped
def describe(
    source: Source,
    pool_options: options.PoolOptions,
    figure: Annotated[
        Path | None,
        typer.Option(help="Picture to draw, .png and .pdf. [default: none]"),
    ] = None,
    model: options.Model = "llama-3-8b",
    hardware: options.Hardware = "a100-80gb",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Describe a pool: lengths, prefix sharing and density.

    Density is compute seconds over memory seconds on --model and --hardware.

    \b
    Example:
      bssim workload describe trace1 --figure trace1.png
      bssim workload describe azure2023_conv.csv --json
    """
    from bssim.cost_models.density import DensityConstants
    from bssim.cost_models.hardware import load_hardware
    from bssim.cost_models.llm import load_llm
    from bssim.experiments.sweeps import build_workload
    from bssim.sim.workload import describe as describe_workload

    options.require_picture(figure)
    llm, gpu = load_llm(model), load_hardware(hardware)
    pool = build_workload(pool_options.of(source))
    lengths = (pool.prompt_tokens, pool.output_tokens)
    constants = DensityConstants.of(llm, gpu, lengths=lengths)
    facts = describe_workload(pool, constants=constants)
    if json:
        from json import dumps

        typer.echo(dumps(facts))
    else:
        _print_facts(facts)
        say_notes(pool.notes, pool.name, quiet)
    if figure is not None:
        from bssim.experiments.plots import save, workload_figure
        from bssim.sim.workload import request_density

        for path in save(
            workload_figure(pool, request_density(pool, constants)), figure.with_suffix("")
        ):
            say(f"drew {path}", quiet)


@grouped
def convert(
    source: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT.csv|OUT.jsonl", help="File to write.")],
    pool_options: options.PoolOptions,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a pool as CSV or as token-id JSON lines.

    The CSV has lengths and maximal hits; JSON lines keep the prefix sharing.

    \b
    Example:
      bssim workload convert trace3 trace3.csv --num-requests 1000
    """
    from bssim.experiments.sweeps import build_workload
    from bssim.sim.workload import convert as convert_workload

    options.require_suffix(out, "OUT", ".csv", ".jsonl")
    options.require_writable(out, "OUT")
    options.require_distinct([("OUT", out)], source, "the trace itself")
    pool = build_workload(pool_options.of(source))
    with request_progress(quiet) as bar:
        progress = None if bar is None else lambda done: bar(done, len(pool))
        convert_workload(pool, out, seed=pool_options.seed, progress=progress)
    if json:
        from json import dumps

        typer.echo(dumps({"out": str(out), "num_requests": len(pool)}))
    else:
        say(f"wrote {counted(len(pool), 'request')} to {out}", quiet)


def _print_facts(facts: dict[str, Any]) -> None:
    typer.echo(f"{'requests':<14} {facts['num_requests']:,}")
    for source in facts["sources"]:
        if source["num_requests"]:
            typer.echo(
                f"  {source['name']:<12} {source['num_requests']:>9,} requests, mean tokens "
                f"{source['prompt_tokens_mean']:,.1f} + {source['output_tokens_mean']:,.1f}, "
                f"sharing {source['sharing_max']:.1%}, density {source['density']:.3g}"
            )
    for name in ("prompt", "output"):
        quantiles = facts[f"{name}_tokens_quantiles"].items()
        spread = ", ".join(f"{q} {tokens:,.0f}" for q, tokens in quantiles)
        mean = facts[f"{name}_tokens_mean"]
        typer.echo(
            f"{name + ' tokens':<14} {facts[f'{name}_tokens']:,}; mean {mean:,.1f}; {spread}"
        )
    typer.echo(f"{'sharing':<14} {facts['sharing_max']:.1%} of prompt tokens, at most")
    typer.echo(f"{'density':<14} {facts['density']:.3f} compute s / memory s")
