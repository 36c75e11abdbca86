"""``bssim run``: serve a batch file with vLLM in this process, and plan the order as it runs.

1. vLLM's own code turns every line into token ids. A line that vLLM refuses becomes an error row.
2. A sample runs first, and its results are kept. It shows output lengths and the cost of a step.
3. The orders are simulated with both while the engine runs, and the fastest one is adopted.
4. The rest is planned again whenever the number of finished requests has doubled since the last
   plan.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from bssim.backends.step_work import WorkMeter, summed_work
from bssim.backends.vllm.engine import read_back
from bssim.backends.vllm.openai import Answer, OpenAISession, Prompt, parse_arguments
from bssim.cost_models.fitted import FittedCostModel, fit
from bssim.errors import InputError, unknown_name
from bssim.experiments.batch.run_lengths import Observed, RunLengths, learned
from bssim.experiments.batch.run_lines import CheckedBatch, check_batch, check_models, read_lines
from bssim.experiments.batch.run_planner import RUN_TIME_ORDERS, Choice, Planning, Question
from bssim.experiments.batch.run_policy import ChangingPlan
from bssim.experiments.batch.run_results import Results, settings_of
from bssim.sim.engine.config import EngineConfig, load_preset
from bssim.sim.schedulers.registry import scheduler_names
from bssim.sim.schedulers.static_order import StaticOrder
from bssim.sim.workload.combine import take
from bssim.sim.workload.tree_builders import flatten, from_token_ids
from bssim.sim.workload.workload import Workload, make_workload

RENDERED_AT_ONCE = 256
"""Lines that vLLM renders together."""
FITTED_STEPS = 64
"""No plan is made before this many steps have been measured."""
SAMPLE_SEEN = 0.8
"""Share of the sample that must finish before the first plan. Waiting for all takes too long."""
REST_WORTH_A_PLAN = 0.05
"""The rest is planned only if it is at least this share of the pool."""
STILL_STEPS = 1000
"""After this many steps in a row that compute nothing, the engine counts as stuck."""
NO_SAMPLE = ("fcfs", "dfs", "random")
"""Orders that do not depend on output lengths."""


@dataclass(frozen=True, slots=True)
class PlanMade:
    """A chosen order and its predicted time."""

    at_s: float
    """Time of the plan, in seconds after the first step."""
    left: int
    """Requests that the plan covers."""
    scheduler: str
    predicted_s: float
    """Predicted seconds from the first step to the end of the run."""
    tried: dict[str, float]
    """Simulated seconds for the rest, by scheduler."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The progress of a run, reported after every step."""

    finished: int
    num_requests: int
    elapsed_s: float
    throughput_tok_s: float
    scheduler: str
    left_s: float | None
    predicted_s: float | None
    """Seconds of the whole run as the last plan predicts them; None before the first plan."""


@dataclass(slots=True)
class RunReport:
    """What a run did."""

    out: str
    num_requests: int
    finished_before: int
    """Rows written by an earlier, interrupted run."""
    finished: int = 0
    """Rows that this run wrote, including failed ones."""
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    wall_s: float = 0.0
    """Seconds from the first step to the last row, without engine start and rendering."""
    start_s: float = 0.0
    """Seconds until the engine was ready."""
    render_s: float = 0.0
    """Seconds from then until all lines were token ids."""
    throughput_tok_s: float = 0.0
    plans: list[PlanMade] = field(default_factory=list)


class RunError(RuntimeError):
    """A run ended early. Its results are kept, and the same call continues it."""


def run(
    batch: Path | str,
    out: Path | str,
    *,
    model: str,
    scheduler: str = "auto",
    engine_args: Sequence[str] = (),
    seed: int = 0,
    clock: Literal["wall", "process"] = "wall",
    say: Callable[[str], None] = lambda _: None,
    status: Callable[[RunStatus], None] = lambda _: None,
) -> RunReport:
    """Run an OpenAI batch file on vLLM in this process and return a report.

    Each row is written to ``out`` when its request finishes. Called again after a crash, it runs
    only the requests that are missing there.

    Args:
        batch: OpenAI batch file, chat or completions.
        out: Output file, in the format of an OpenAI batch output.
        model: A folder with config.json, weights and tokenizer, or a name that vLLM can download.
        scheduler: A name from ``bssim schedulers``, or ``auto``: the fastest one in simulation.
        engine_args: Flags of ``vllm run-batch``.
        seed: Seed for the sample and for random orders.
        clock: ``process`` measures CPU time, for a CPU engine on a busy machine.
        say: Called with a sentence for every event.
        status: Called with the progress after every step.

    Raises:
        InputError: Before anything runs, for lines, flags and models that cannot be served.
        RunError: The engine failed.
    """
    if scheduler != "auto" and scheduler not in scheduler_names():
        raise unknown_name("--scheduler", scheduler, ["auto", *scheduler_names()])
    now = time.perf_counter if clock == "wall" else time.process_time
    began = now()
    file = check_batch(Path(batch))
    arguments = parse_arguments(model, engine_args)
    check_models(file, arguments.served_model_name or [arguments.model])
    note = settings_of(model, scheduler, list(engine_args))
    with Results(Path(out), file, note) as results:
        report = RunReport(str(out), len(file.custom_ids), len(results.rows))
        report.failed = sum(row["failed"] for row in results.rows.values())
        if report.finished_before:
            say(f"{out} already has {report.finished_before:,} of {report.num_requests:,} results")
        if report.finished_before == report.num_requests:
            return report
        say(f"starting vLLM with {model}")
        session = OpenAISession(arguments)
        report.start_s = now() - began
        try:
            pool = _Pool(file, session, results, report)
            report.render_s = now() - began - report.start_s
            if pool.left:
                _Run(scheduler, seed, session, pool, results, report, now, say, status).serve()
        except InputError:
            raise
        except Exception as error:  # vLLM raises what its parts raise
            raise RunError(
                f"{type(error).__name__}: {error}; {len(results.rows):,} of "
                f"{report.num_requests:,} results are in {out}; the same command continues"
            ) from error
        finally:
            session.close()
    return report


class _Pool:
    """The requests that the engine accepts, as a `Workload`. Refused lines become error rows."""

    def __init__(
        self, batch: CheckedBatch, session: OpenAISession, results: Results, report: RunReport
    ) -> None:
        prompts: list[npt.NDArray[np.int32]] = []
        caps: list[int] = []
        self.row_of: dict[int, int] = {}
        """Row in the workload, by index in the file."""
        lines = read_lines(batch)
        while part := list(islice(lines, RENDERED_AT_ONCE)):
            rows = [(line.index, line.custom_id, line.url, line.body) for line in part]
            for index, found in session.prepare(rows).items():
                if isinstance(found, Prompt):
                    self.row_of[index] = len(prompts)
                    prompts.append(found.token_ids)
                    caps.append(max(found.max_tokens, 1))
                    if index in results.rows:
                        session.forget(index)
                elif index not in results.rows:
                    results.write(index, found.row)
                    report.finished += 1
                    report.failed += 1
        self.indices = list(self.row_of)
        """Index in the file, by row."""
        self.left = [row for index, row in self.row_of.items() if index not in results.rows]
        if not prompts:
            return
        flat, offsets = flatten(prompts)
        tree, node = from_token_ids(flat, offsets)
        self.workload: Workload = make_workload(
            batch.path.name, np.diff(offsets), caps, tree=tree, node=node, max_tokens=caps
        )


class _Run:
    """A run from its first step to its last."""

    def __init__(
        self,
        scheduler: str,
        seed: int,
        session: OpenAISession,
        pool: _Pool,
        results: Results,
        report: RunReport,
        now: Callable[[], float],
        say: Callable[[str], None],
        status: Callable[[RunStatus], None],
    ) -> None:
        self._chosen, self._seed, self._session, self._pool = scheduler, seed, session, pool
        self._results, self._report = results, report
        self._now, self._say, self._status = now, say, status
        self.workload = pool.workload
        self.engine: EngineConfig = read_back(session.config, load_preset("vllm"))
        self._lengths = RunLengths(self.workload, np.random.default_rng(seed))
        left = set(pool.left)
        self._sample = (
            [] if scheduler in NO_SAMPLE else [row for row in self._lengths.sample if row in left]
        )
        self._policy = ChangingPlan(len(self.workload), self._sample)
        self._policy.leave_out([r for r in range(len(self.workload)) if r not in left])
        rest = self._policy.never_admitted()
        self.scheduler = "fcfs" if scheduler == "fcfs" else "dfs"
        order = np.arange(len(rest)) if scheduler == "fcfs" else take(self.workload, rest).dfs_order
        self._policy.adopt(StaticOrder(order), rest)
        session.admit_from(self._policy, pool.indices)
        prompt_tokens = self.workload.prompt_tokens.tolist()
        self._meter = WorkMeter(dict(zip(pool.indices, prompt_tokens, strict=True)))
        self._work: list[list[int]] = []
        self._seconds: list[float] = []
        self._ends: list[float] = []
        """Seconds at which requests of this run finished."""
        self._planning: Planning | None = None
        self._question_at = 0.0
        self._due = max(1, int(SAMPLE_SEEN * len(self._sample)))
        self._choice: Choice | None = None

    def serve(self) -> None:
        """Step until all requests are finished."""
        self._began = self._now()
        unspent, still = 0.0, 0
        try:
            while self._session.unfinished:
                start = self._now()
                answers, row = self._session.step()
                for answer in answers:
                    self._finish(answer)
                unspent += self._now() - start
                still = still + 1 if row is None and not answers else 0
                if row is not None:
                    self._work.append(self._meter.sums(row))
                    self._seconds.append(unspent)
                    self._report.preemptions += len(row["preempted"])
                    unspent = 0.0
                elif still > STILL_STEPS:
                    raise RuntimeError("the engine computes nothing although requests are left")
                self._plan()
                self._tell()
        finally:
            if self._planning is not None:
                self._planning.cancel()
        report = self._report
        report.steps = len(self._work)
        report.wall_s = self._elapsed
        report.throughput_tok_s = (report.prompt_tokens + report.output_tokens) / report.wall_s

    @property
    def _elapsed(self) -> float:
        return self._now() - self._began

    def _finish(self, answer: Answer) -> None:
        """Write a result and count it."""
        self._results.write(answer.index, answer.row)
        report = self._report
        report.finished += 1
        report.failed += int(self._results.rows[answer.index]["failed"])
        report.prompt_tokens += answer.prompt_tokens
        report.output_tokens += answer.output_tokens
        report.cached_tokens += answer.cached_tokens
        self._ends.append(self._elapsed)

    def _plan(self) -> None:
        """Start planning when it is due, and adopt a plan when it is ready."""
        if self._planning is None:
            due = len(self._ends) >= self._due and len(self._work) >= FITTED_STEPS
            rest = self._policy.never_admitted() if due else ()
            if len(rest) < max(2, REST_WORTH_A_PLAN * len(self.workload)):
                return
            schedulers: tuple[str, ...] = (self._chosen,)
            if self._chosen == "auto":  # first the current one, which wins ties
                schedulers = tuple(dict.fromkeys((self.scheduler, *RUN_TIME_ORDERS)))
            self._question_at = self._elapsed
            self._due = 2 * len(self._ends)
            self._planning = Planning(self._question(np.asarray(rest), schedulers))
        choice = self._planning.result()
        if choice is None:
            return
        self._planning = None
        self._adopt(choice)

    def _question(self, rest: npt.NDArray[np.int64], schedulers: tuple[str, ...]) -> Question:
        """Return the planning question for the rows ``rest``, with everything known so far."""
        row_of = self._pool.row_of
        seen = [
            (row_of[index], tokens, ended)
            for index, tokens, ended in self._results.observed()
            if index in row_of and tokens > 0
        ]
        table = np.array(seen, dtype=np.int64).reshape(-1, 3)
        observed = Observed(table[:, 0], table[:, 1], table[:, 2].astype(np.bool_))
        estimates, curves = self._lengths.estimate(observed)
        drawn = self._lengths.draw(curves, np.random.default_rng(self._seed))
        pool = take(self.workload, rest)
        return Question(
            rest=replace(pool, output_tokens=drawn[rest]),
            estimator=learned(estimates, rest),
            engine=self.engine,
            cost_model=self._cost_model(),
            schedulers=schedulers,
            seed=self._seed,
        )

    def _cost_model(self) -> FittedCostModel:
        """Return a cost model fitted to the steps of this run."""
        return fit(summed_work(self._work), np.array(self._seconds), "the steps of this run")

    def _adopt(self, choice: Choice) -> None:
        """Serve the rest in the chosen order."""
        self._choice = choice
        scheduler, rest = choice.forecast.scheduler, self._policy.never_admitted()
        if len(rest) and not (scheduler == self.scheduler and scheduler in NO_SAMPLE):
            plan = self._question(rest, (scheduler,)).plan(scheduler)
            self._policy.adopt(plan.policies[0], rest)
            self.scheduler = scheduler
        made = PlanMade(
            at_s=self._question_at,
            left=len(choice.forecast.finish_s),
            scheduler=scheduler,
            predicted_s=self._question_at + choice.forecast.makespan_s,
            tried=choice.tried,
        )
        self._report.plans.append(made)
        self._say(
            f"plan {len(self._report.plans)}, for {made.left:,} requests: {scheduler}; "
            f"predicted time of the whole run: {made.predicted_s:,.1f} s"
        )

    def _tell(self) -> None:
        report, elapsed = self._report, self._elapsed
        tokens = report.prompt_tokens + report.output_tokens
        predicted = report.plans[-1].predicted_s if report.plans else None
        self._status(
            RunStatus(
                finished=len(self._results.rows),
                num_requests=report.num_requests,
                elapsed_s=elapsed,
                throughput_tok_s=tokens / max(elapsed, 1e-9),
                scheduler=self.scheduler,
                left_s=self._left_s(elapsed),
                predicted_s=predicted,
            )
        )

    def _left_s(self, elapsed: float) -> float | None:
        """Return the remaining seconds: the rest of the forecast at the pace of the run so far."""
        if self._choice is None:
            return None
        forecast = self._choice.forecast
        since = elapsed - self._question_at
        left = len(self._pool.left) - len(self._ends)
        simulated = float(forecast.finish_s[max(0, len(forecast.finish_s) - left) - 1])
        if left >= len(forecast.finish_s):  # still those that ran at the time of the plan
            return max(0.0, forecast.makespan_s - since)
        pace = since / simulated if simulated > 0 else 1.0
        return (forecast.makespan_s - simulated) * pace
