"""``bssim costs``: how long each operator of one step takes, and why."""

from pathlib import Path
from typing import Annotated

import typer

from bssim.experiments.cli import options
from bssim.experiments.cli.terminal import say


def costs(
    model: options.Model = "llama-3-8b",
    dtype: options.Dtype = None,
    quantization: options.Quantization = None,
    kv_cache_dtype: options.KVCacheDtype = None,
    hardware: options.Hardware = "a100-80gb",
    cost_model: options.CostModel = "roofline",
    prefill: Annotated[
        str | None, typer.Option(metavar="NxTOKENS", help="N prompts of TOKENS tokens.")
    ] = None,
    decode: Annotated[
        str | None, typer.Option(metavar="NxCONTEXT", help="N decode requests at CONTEXT tokens.")
    ] = None,
    tp: options.TensorParallel = 1,
    pp: options.PipelineParallel = None,
    overlap: Annotated[
        str, typer.Option(help="Also price the step under: perfect, frontier, gamma:G or pnorm:P.")
    ] = "sequential",
    figure: Annotated[
        Path | None, typer.Option(help="Draw the roofline with the operators on it, .png and .pdf.")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """List the operators of one step and the seconds of each.

    Also says what bounds each of them and where its number comes from. --prefill and --decode
    together make one mixed step.

    \b
    Example:
      bssim costs --prefill 4x768 --decode 96x700
      bssim costs --hardware h100-sxm --decode 256x1024 --json
    """
    from bssim.cost_models.llm import load_llm
    from bssim.experiments.costs import costs_report

    options.require_picture(figure)
    llm = load_llm(model, dtype=dtype, quantization=quantization, kv_cache_dtype=kv_cache_dtype)
    report = costs_report(
        llm,
        hardware,
        cost_model,
        prefill=prefill,
        decode=decode,
        tp=tp,
        pp=pp or 1,
        overlap=overlap,
    )
    if json:
        from json import dumps

        typer.echo(dumps(report.as_dict()))
    else:
        typer.echo(report.as_text())
    if figure is not None:
        from bssim.experiments.plots import roofline_figure, save

        for path in save(roofline_figure(report), figure.with_suffix("")):
            say(f"drew {path}", quiet)
