"""``bssim simulate``: one workload, one scheduler, one engine."""

from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bssim.errors import InputError
from bssim.experiments.cli import options
from bssim.experiments.cli.groups import grouped
from bssim.experiments.cli.terminal import request_progress, say, say_notes, say_trace
from bssim.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from bssim.sim.result import SimulationResult


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files that the command writes on request."""

    steps: Annotated[
        Path | None, typer.Option(help="Write one JSON line per step: what was scheduled.")
    ] = None
    timeline: Annotated[
        Path | None, typer.Option(help="Write every step's work and cost (.parquet).")
    ] = None
    schedule: Annotated[
        Path | None, typer.Option(help="Write the admission order (.jsonl) for a replay.")
    ] = None
    perfetto: options.Perfetto = None

    def check(self, workload: str, disaggregation: str | None) -> None:
        """Raise InputError for files that cannot be written, or not for such a run."""
        if self.schedule is not None and disaggregation is not None:
            raise InputError(
                "--schedule",
                "beside --disaggregation",
                "one of the two: no backend replays such a run",
            )
        options.require_suffix(self.timeline, "--timeline", ".parquet")
        options.require_trace(self.perfetto)
        paths = [(f"--{field.name}", getattr(self, field.name)) for field in fields(self)]
        for option, path in paths:
            options.require_writable(path, option)
        options.require_distinct(paths, workload, "the workload file itself")

    def write(self, result: "SimulationResult", facts: dict[str, Any], quiet: bool) -> None:
        """Write all but ``--steps``, which grows as the simulation runs. ``facts``: what ran."""
        if self.timeline is not None:
            from bssim.experiments.sweeps import per_step
            from bssim.whole_file import naming

            with naming(self.timeline):
                per_step(result).to_parquet(self.timeline)
        if self.schedule is not None:
            from bssim.sim.schedule import write_schedule

            write_schedule(self.schedule, result.schedule, result.workload)
        if self.perfetto is not None:
            from bssim.experiments.perfetto import simulated, write_trace

            trace = write_trace(self.perfetto, simulated(result, facts))
            say_trace(self.perfetto, trace, quiet)


@grouped
def simulate(
    workload: options.Workload,
    run: options.RunOptions,
    pool_options: options.PoolOptions,
    outputs: Outputs,
    tp: options.TensorParallel = 1,
    pp: options.PipelineParallel = None,
    dp: options.DataParallel = 1,
    disaggregation: options.Disaggregation = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Simulate one scheduler and print its throughput.

    Also prints which shares of the tightest bound and the practical optimum it reaches.

    \b
    Example:
      bssim simulate --workload trace1 --scheduler blendserve
      bssim simulate -w trace1 -s dfs --engine vllm --disaggregation 1P2D
      bssim simulate -w pool.jsonl --set engine.max_num_seqs=64 --json
    """
    from bssim.experiments.sweeps import ok_row, set_fields, simulate_cell

    outputs.check(workload, disaggregation)
    cell = run.cell(
        pool_options.of(workload), "simulate", tp=tp, dp=dp, pp=pp, disaggregation=disaggregation
    )
    with ExitStack() as stack:
        on_step = _step_writer(stack, outputs.steps)
        progress = stack.enter_context(request_progress(quiet))
        result = simulate_cell(
            cell,
            record_timeline=bool(outputs.timeline or outputs.perfetto),
            exact_kv=outputs.timeline is not None,
            on_step=on_step,
            progress=progress,
        )
    facts = cell.identity()
    row = ok_row(facts, result) | set_fields(cell)
    outputs.write(result, facts, quiet)
    if run.engine is None:
        say(
            f"note: engine {options.SIMULATED_ENGINE} (default), which overlaps compute and "
            "memory; compare, plan and run assume vllm (--engine vllm)",
            quiet,
        )
    notes = (*result.notes, *filter(None, [result.tail_note]))
    say_notes(notes, result.workload.name, quiet)
    if json:
        from json import dumps

        typer.echo(dumps(row))
    else:
        _print_row(row)


def _step_writer(stack: ExitStack, path: Path | None) -> "Callable[[dict[str, Any]], None] | None":
    """Return a function that appends a step to ``path`` as a line of JSON; None without a path."""
    if path is None:
        return None
    from json import dumps

    from bssim.whole_file import naming

    stack.enter_context(naming(path))
    file = stack.enter_context(path.open("w", encoding="utf-8"))
    return lambda step: print(dumps(step), file=file)


def _print_row(row: dict[str, Any]) -> None:
    for label, text in (
        ("workload", f"{row['workload']}, {counted(row['num_requests'], 'request')}"),
        ("tokens", f"{row['prompt_tokens']:,} prompt + {row['output_tokens']:,} output"),
        ("density", f"{row['density']:.2f} compute s / memory s"),
        ("scheduler", f"{row['scheduler']} ({row['output_lengths']} output lengths)"),
        (
            "engine",
            f"{row['engine']}, {row['overlap']} overlap, {row['model']} on {row['hardware']}",
        ),
        ("wall time", f"plan {row['plan_wall_s']:.1f} s, simulation {row['sim_wall_s']:.1f} s"),
        (
            "sharing",
            f"{row['sharing']:.1%} of prompt tokens cached; at most {row['sharing_max']:.1%}",
        ),
        ("preemptions", f"{row['preemptions']:,} ({row['recomputed_tokens']:,} tokens recomputed)"),
        (
            "tail",
            f"{row['tail_share']:.1%} of the makespan; "
            f"{row['throughput_without_tail_tok_s']:,.0f} tokens/s without it",
        ),
        (
            "optimum",
            f"{row['optimum_tok_s']:,.0f} tokens/s, which ignores the longest request; "
            f"reached {row['share_of_optimum']:.1%}",
        ),
        (
            "bound",
            f"{row['share_of_bound'] * row['makespan_s']:,.1f} s, the tightest lower bound on the "
            f"makespan; reached {row['share_of_bound']:.1%}",
        ),
        ("makespan", f"{row['makespan_s']:,.1f} s in {counted(row['steps'], 'step')}"),
        ("throughput", f"{row['throughput_tok_s']:,.0f} tokens/s (prompt + output)"),
    ):
        typer.echo(f"{label:<12} {text}")
