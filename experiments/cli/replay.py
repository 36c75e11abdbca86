"""``bssim replay`` and ``bssim validate``: the commands that need an engine."""

from pathlib import Path
from typing import Annotated

import typer

from bssim.errors import InputError
from bssim.experiments.cli import options


def replay(
    schedule: Annotated[
        Path,
        typer.Argument(metavar="SCHEDULE", help="File that `bssim simulate --schedule` wrote."),
    ],
    workload: Annotated[str, typer.Option("--workload", "-w", help="Workload of the schedule.")],
    model_path: Annotated[
        Path, typer.Option("--model-path", help="Folder with config.json (and weights).")
    ],
    backend: Annotated[str, typer.Option("--backend", help="vllm.")] = "vllm",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Result file; journals go beside it.")
    ] = (Path("replay.json")),
    num_requests: options.NumRequests = None,
    seed: options.Seed = 0,
    engine: options.Engine = "vllm",
    settings: options.Settings = None,
    dummy_weights: Annotated[
        bool, typer.Option("--dummy-weights", help="Random weights of config.json's shape.")
    ] = False,
    natural: Annotated[
        bool,
        typer.Option("--natural", help="Stop where the model stops, not at the given lengths."),
    ] = False,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Number format of weights and KV.")
    ] = "bfloat16",
    tp: options.TensorParallel = 1,
    eager: Annotated[
        bool, typer.Option("--enforce-eager", help="No compilation, no CUDA graphs.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = (
        False
    ),
    allow_untested_vllm: Annotated[
        bool, typer.Option("--allow-untested-vllm", help="Allow an untested vLLM release.")
    ] = False,
    perfetto: options.Perfetto = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Serve a schedule on a real engine and measure every step.

    \b
    Example:
      bssim replay dfs.jsonl -w pool.jsonl --model-path llama-3-8b --dummy-weights
    """
    from bssim.backends import replay as run
    from bssim.backends.vllm import VllmBackend
    from bssim.experiments.cli.terminal import request_progress, say, say_trace
    from bssim.experiments.sweeps import engine_from_options
    from bssim.sim.schedule import check_precision, read_schedule, scheduled_pool
    from bssim.sim.workload import load_workload

    if backend != "vllm":
        raise InputError("--backend", repr(backend), "vllm")
    options.require_trace(perfetto)
    whole = load_workload(workload, num_requests=num_requests, seed=seed)
    pool = scheduled_pool(schedule, whole)
    order = read_schedule(schedule, pool)
    vllm = VllmBackend(
        model=model_path,
        engine=engine_from_options(engine, settings),
        dummy_weights=dummy_weights,
        natural=natural,
        dtype=dtype,
        tensor_parallel=tp,
        enforce_eager=eager,
        allow_untested_version=allow_untested_vllm,
    )
    check_precision(order, vllm.llm())
    with request_progress(quiet) as progress:
        result = run(vllm, pool, order, out, resume=resume, progress=progress)
    if perfetto is not None:
        from bssim.experiments.perfetto import replayed, write_trace

        say_trace(perfetto, write_trace(perfetto, replayed(result)), quiet)
    say(f"wrote {out}; its journals are beside it", quiet)
    _print(result.totals(), json)


def validate(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="YAML file; see configs/validate/.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder. [default: results/validate-NAME]")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Simulate and replay the same schedules, and report the errors.

    \b
    Example:
      bssim validate configs/validate/cpu.yaml
    """
    from bssim.experiments.cli.terminal import request_progress, say
    from bssim.experiments.validation import load_validation, write_report
    from bssim.experiments.validation import validate as compare

    settings = load_validation(config)
    folder = out or Path("results") / f"validate-{settings.name}"
    if (folder / "replays").exists():
        raise InputError.saying(folder, "holds an earlier validation", "a new folder")
    with request_progress(quiet) as progress:
        found = compare(settings, folder, lambda m: say(m, quiet), progress)
    write_report(found, folder)
    if json:
        typer.echo(found.table.to_json(orient="records"))
        return
    report = folder / "report.md"
    typer.echo(report.read_text(encoding="utf-8"))
    worst = found.table["throughput_error"].abs().max()
    typer.echo(f"Predicted throughput is off by at most {worst:.1%}; this is {report}")


def _print(values: dict[str, object], as_json: bool) -> None:
    if as_json:
        from json import dumps

        typer.echo(dumps(values))
        return
    for name, value in values.items():
        typer.echo(
            f"{name:<18} {value:,.3f}" if isinstance(value, float) else f"{name:<18} {value}"
        )
