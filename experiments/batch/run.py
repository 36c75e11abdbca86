"""``bssim run``: serve a batch file with vLLM, and plan the order as it runs.

vLLM's own code turns every line into token ids. A line that vLLM refuses becomes an error row. Then
`run_loop` serves the others, in this process or on several replicas (`replicas`).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from bssim.backends.vllm import OpenAISession, Prompt, check_parallel, parse_arguments
from bssim.errors import InputError, unknown_name
from bssim.experiments.batch.run_lines import CheckedBatch, check_batch, check_models, read_lines
from bssim.experiments.batch.run_loop import RunLoop, RunSettings
from bssim.experiments.batch.run_pool import pool_of, rendered
from bssim.experiments.batch.run_report import RunError, RunReport, RunStatus
from bssim.experiments.batch.run_results import Results, settings_of
from bssim.experiments.perfetto import Trace, write_trace
from bssim.sim.schedulers import scheduler_names
from bssim.wording import counted


def run(
    batch: Path | str,
    out: Path | str,
    *,
    model: str,
    scheduler: str = "auto",
    engine_args: Sequence[str] = (),
    seed: int = 0,
    dp: int = 1,
    perfetto: Path | str | None = None,
    clock: Literal["wall", "process"] = "wall",
    say: Callable[[str], None] = lambda _: None,
    status: Callable[[RunStatus], None] = lambda _: None,
) -> RunReport:
    """Run an OpenAI batch file on vLLM and return a report.

    Each row is written to ``out`` when its request finishes. Called again after a crash, it runs
    only the requests that are missing there.

    Args:
        batch: OpenAI batch file, chat or completions.
        out: Output file, in the format of an OpenAI batch output.
        model: A folder with config.json, weights and tokenizer, or a name that vLLM can download.
        scheduler: A name from ``bssim schedulers``, or ``auto``: the fastest one in simulation.
        engine_args: Flags of ``vllm run-batch``.
        seed: Seed for the sample and for random orders.
        dp: Replicas, each with its own engine. One engine runs in this process; several run on Ray,
            on the cluster of RAY_ADDRESS or on this machine.
        perfetto: Write a trace of the steps for the Perfetto UI; only with one replica.
        clock: ``process`` measures CPU time, for one CPU engine on a busy machine.
        say: Called with a sentence for every event.
        status: Called with the progress after every step.

    Raises:
        InputError: Before anything runs, for lines, flags and models that cannot be served.
        RunError: The engine failed.
    """
    _check(scheduler, dp, clock, perfetto is not None)
    now = time.perf_counter if clock == "wall" else time.process_time
    file = check_batch(Path(batch))
    arguments = parse_arguments(model, engine_args)
    check_models(file, arguments.served_model_name or [arguments.model])
    check_parallel(arguments, dp)
    note = settings_of(model, scheduler, list(engine_args), dp)
    settings = RunSettings(scheduler, seed, now, say, status, perfetto is not None)
    with Results(Path(out), file, note) as results:
        report = RunReport(str(out), len(file.custom_ids), len(results.rows))
        report.failed = sum(row["failed"] for row in results.rows.values())
        if report.finished_before:
            say(f"{out} already has {report.finished_before:,} of {report.num_requests:,} results")
        left = report.num_requests - report.finished_before
        if not left:
            return report
        report.replicas = min(dp, left)
        try:
            if dp > 1:  # also for one request, because this machine may have no GPU
                from bssim.experiments.batch.replicas import run_on_replicas

                say(f"starting {counted(report.replicas, 'replica')} of vLLM with {model}")
                run_on_replicas(arguments, engine_args, file, results, report, settings)
            else:
                say(f"starting vLLM with {model}")
                loop = _run_here(arguments, file, results, report, settings)
                if perfetto is not None and loop is not None:
                    facts = {"batch": file.path.name, "model": model, "measured": True}
                    write_trace(Path(perfetto), Trace((loop.track(),), facts=facts))
        except InputError:
            raise
        except Exception as error:  # vLLM passes on whatever its parts raise
            raise RunError(
                f"{type(error).__name__}: {error}; {len(results.rows):,} of "
                f"{report.num_requests:,} results are in {out}; the same command continues"
            ) from error
    return report


def _check(scheduler: str, dp: int, clock: str, traced: bool) -> None:
    if scheduler != "auto" and scheduler not in scheduler_names():
        raise unknown_name("--scheduler", scheduler, ["auto", *scheduler_names()])
    if dp < 1:
        raise InputError("--dp", dp, "at least 1")
    if dp > 1 and clock == "process":
        raise InputError("clock", f"process with dp {dp}", "wall: replicas are other processes")
    if dp > 1 and traced:
        raise InputError("--perfetto", f"beside --dp {dp}", "one replica")


def _run_here(
    arguments: Any,
    file: CheckedBatch,
    results: Results,
    report: RunReport,
    settings: RunSettings,
) -> RunLoop | None:
    """Start an engine in this process, render all lines and serve the unfinished ones.

    Returns the run at its end; None if the engine had nothing to serve.
    """
    began = settings.now()
    session = OpenAISession(arguments)
    report.start_s = settings.now() - began
    try:
        return _serve(session, file, results, report, settings)
    finally:
        session.close()


def _serve(
    session: OpenAISession,
    file: CheckedBatch,
    results: Results,
    report: RunReport,
    settings: RunSettings,
) -> RunLoop | None:
    began = settings.now()
    prompts = {}
    for index, found in rendered(session, read_lines(file)):
        if not isinstance(found, Prompt):
            report.record(found, results)
            continue
        prompts[index] = found
        if index in results.rows:
            session.forget(index)
    report.render_s = settings.now() - began
    pool = pool_of(file.path.name, prompts, results)
    if pool is None or not pool.left:
        return None
    loop = RunLoop(settings, session, pool, results, report)
    for _ in loop.steps():
        pass
    return loop
