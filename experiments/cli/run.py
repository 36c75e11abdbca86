"""``bssim run``: serve an OpenAI batch file on vLLM, in an order planned at run time."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bssim.experiments.cli import options
from bssim.experiments.cli.terminal import say

if TYPE_CHECKING:
    from bssim.experiments.batch import RunReport, RunStatus

LINE_S = 10.0
"""Seconds between two lines of progress if stderr is not a terminal."""
BAR_S = 0.2


def run(
    batch: Annotated[Path, typer.Argument(metavar="BATCH", help="OpenAI batch file (JSON lines).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Results, in OpenAI's output format.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Folder with weights, or a model name for vLLM.")
    ],
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler",
            "-s",
            help="auto (the fastest) or a name from `bssim schedulers`.",
            autocompletion=options.complete_scheduler,
        ),
    ] = "auto",
    engine_args: Annotated[
        str, typer.Option("--engine-args", help="Flags of `vllm run-batch`, in one string.")
    ] = "",
    dp: Annotated[
        int, typer.Option("--dp", min=1, help="Replicas: engines, on Ray if more than one.")
    ] = 1,
    seed: options.Seed = 0,
    perfetto: options.Perfetto = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Serve a batch file on vLLM in an order planned at run time.

    vLLM runs in this process. With --dp N, N engines run on the Ray cluster at RAY_ADDRESS, or on
    this machine, and if one fails, the others take over its requests. Each result is written as
    soon as its request finishes. After a crash, run the same command again: no finished request is
    lost or runs twice. A request that fails becomes an error row, and the exit status is then 1.

    \b
    Example:
      bssim run batch.jsonl -o results.jsonl --model ./llama-3-8b
      bssim run batch.jsonl -o out.jsonl -m ./llama-3-8b --engine-args "--seed 1"
      bssim run batch.jsonl -o out.jsonl -m ./m --dp 2 --engine-args "-tp 4"
    """
    from bssim.experiments.batch import RunError
    from bssim.experiments.batch import run as run_batch

    options.require_writable(out, "--out")
    options.require_trace(perfetto)
    outputs = (("--out", out), ("--perfetto", perfetto))
    options.require_distinct(outputs, batch, "the batch file itself")
    try:
        with _progress(quiet) as status:
            report = run_batch(
                batch,
                out,
                model=model,
                scheduler=scheduler,
                engine_args=shlex.split(engine_args),
                seed=seed,
                dp=dp,
                perfetto=perfetto,
                say=lambda message: say(message, quiet),
                status=status,
            )
    except RunError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say(
            f"interrupted: finished results are in {out}; run the same command again to resume",
            quiet,
        )
        raise typer.Exit(130) from None
    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps(asdict(report)))
    else:
        say(summary(report), quiet)
    if report.failed:
        raise typer.Exit(1)


def summary(report: "RunReport") -> str:
    """Return the lines printed at the end of a run."""
    total = report.num_requests
    lines = [f"{report.out}: {report.finished_before + report.finished:,} of {total:,} results"]
    if report.failed:
        lines[0] += f", {report.failed:,} of them errors"
    if report.wall_s:
        tokens = report.prompt_tokens + report.output_tokens
        cached = report.cached_tokens / max(report.prompt_tokens, 1)
        lines.append(
            f"{tokens:,} tokens in {duration(report.wall_s)}: {report.throughput_tok_s:,.0f} "
            f"tokens/s; {cached:.0%} of prompt tokens came from the prefix cache"
        )
    if report.lost_replicas:
        lines.append(f"{report.lost_replicas} of {report.replicas} replicas failed")
    if report.plans:
        firsts = {plan.replica: plan for plan in reversed(report.plans)}
        first = max(firsts.values(), key=lambda plan: plan.predicted_s)
        error = first.predicted_s / report.wall_s - 1
        last = {plan.replica: plan.scheduler for plan in report.plans}
        orders = ", ".join(dict.fromkeys(last.values()))
        lines.append(
            f"order: {orders}; predicted {duration(first.predicted_s)} at "
            f"{duration(first.at_s)}, took {duration(report.wall_s)} ({error:+.1%})"
        )
    return "\n".join(lines)


def status_line(status: "RunStatus") -> str:
    """Return the progress of a run as one line."""
    share = status.finished / status.num_requests
    parts = [
        f"{status.finished:,} of {status.num_requests:,} ({share:.1%})",
        f"{status.throughput_tok_s:,.0f} tokens/s",
        f"{duration(status.elapsed_s)} so far",
    ]
    if status.left_s is not None and status.predicted_s is not None:
        now = status.elapsed_s + status.left_s
        parts.append(f"{duration(status.left_s)} left")
        parts.append(f"{duration(status.predicted_s)} predicted, {duration(now)} at this pace")
    return f"{status.scheduler}: {', '.join(parts)}"


def duration(seconds: float) -> str:
    """Return seconds as ``12.3 s``, or as hours, minutes and seconds from one minute."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[["RunStatus"], None]]:
    """Yield a callback that shows the status: it rewrites one line on a terminal, and prints a
    line from time to time elsewhere."""
    told = time.monotonic()
    terminal = sys.stderr.isatty()

    def show(status: "RunStatus") -> None:
        nonlocal told
        if quiet or time.monotonic() < told + (BAR_S if terminal else LINE_S):
            return
        told = time.monotonic()
        if terminal:
            sys.stderr.write(f"\r\x1b[K{status_line(status)}")
            sys.stderr.flush()
        else:
            say(status_line(status))

    yield show
    if terminal and not quiet:
        sys.stderr.write("\r\x1b[K")
