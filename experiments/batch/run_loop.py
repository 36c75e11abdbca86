"""Serve a pool on one engine: run a sample, plan, learn as requests finish, plan again.

1. A sample runs first, and its results are kept. It shows output lengths and the cost of a step.
2. The orders are simulated with both while the engine runs, and the fastest one is adopted.
3. The rest is planned again whenever the number of finished requests has doubled since the last
   plan.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bssim.backends import WorkMeter, summed_work
from bssim.backends.vllm import Answer, OpenAISession, read_back
from bssim.cost_models.fitted import FittedCostModel, fit
from bssim.experiments.batch.run_lengths import RunLengths, learned
from bssim.experiments.batch.run_planner import RUN_TIME_ORDERS, Choice, Planning, Question
from bssim.experiments.batch.run_policy import ChangingPlan
from bssim.experiments.batch.run_pool import Pool
from bssim.experiments.batch.run_report import PlanMade, RunReport, RunStatus
from bssim.experiments.batch.run_results import FinishedRows
from bssim.experiments.perfetto import StepLog, StepTrack
from bssim.sim.engine import EngineConfig, load_preset
from bssim.sim.schedulers import StaticOrder
from bssim.sim.workload import take

FITTED_STEPS = 64
"""No plan is made before this many steps have been measured."""
SAMPLE_SEEN = 0.8
"""Share of the sample that must finish before the first plan. Waiting for all takes too long."""
REST_WORTH_A_PLAN = 0.05
"""The rest is planned only if it is at least this share of what the engine serves."""
STILL_STEPS = 1000
"""After this many steps in a row that compute nothing, the engine counts as stuck."""
NO_SAMPLE = ("fcfs", "dfs", "random")
"""Orders that do not depend on output lengths."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How to serve a pool, and what to call in the meantime."""

    scheduler: str
    """A name, or ``auto``: the fastest one in simulation."""
    seed: int
    now: Callable[[], float]
    """The clock, in seconds."""
    say: Callable[[str], None] = lambda _: None
    """Called with a sentence for every event."""
    status: Callable[[RunStatus], None] = lambda _: None
    """Called with the progress after every step."""
    traced: bool = False
    """Whether `RunLoop.track` will be asked for the steps."""


class RunLoop:
    """A run from its first step to its last. Requests may come and go in the meantime."""

    def __init__(
        self,
        settings: RunSettings,
        session: OpenAISession,
        pool: Pool,
        results: FinishedRows,
        report: RunReport,
    ) -> None:
        """The run serves ``pool.left``, and learns output lengths from ``results``.

        ``session`` must have prepared all rows of ``pool.left``.
        """
        self._settings, self._session, self._pool = settings, session, pool
        self._results, self._report = results, report
        self._now, self._seed = settings.now, settings.seed
        self.workload = pool.workload
        self.engine: EngineConfig = read_back(session.config, load_preset("vllm"))
        self._lengths = RunLengths(self.workload, np.random.default_rng(self._seed))
        self._policy = ChangingPlan(len(self.workload))
        self.scheduler = "fcfs" if settings.scheduler == "fcfs" else "dfs"
        session.admit_from(self._policy, pool.indices)
        prompt_tokens = self.workload.prompt_tokens.tolist()
        self._meter = WorkMeter(dict(zip(pool.indices, prompt_tokens, strict=True)))
        self._work: list[list[int]] = []
        self._seconds: list[float] = []
        self._log = StepLog()
        self._ends: list[float] = []
        """Seconds at which requests of this run finished."""
        self._planning: Planning | None = None
        self._question_at = 0.0
        self._choice: Choice | None = None
        self._began: float | None = None
        self._unspent, self._still = 0.0, 0
        self._num_served = 0
        """Requests of this engine, finished ones included."""
        self.take(pool.left)

    def take(self, rows: Sequence[int]) -> None:
        """Serve more rows, which the session must have prepared.

        Until a plan was made, the sample among them comes first.
        """
        added, sampled = set(rows), self._settings.scheduler not in NO_SAMPLE
        first = []
        if sampled and not self._report.plans:
            first = [row for row in self._lengths.sample if row in added]
        self._policy.take(rows, first)
        self._num_served += len(rows)
        self._due = len(self._ends) + max(1, int(SAMPLE_SEEN * len(first)))
        self._order_rest()

    def give_back(self) -> list[int]:
        """Return the rows that the engine does not know yet, which this run serves no longer."""
        fresh = self._policy.never_admitted().tolist()
        rows = [row for row in fresh if self._session.waits(self._pool.indices[row])]
        self._policy.give_back(rows)
        self._num_served -= len(rows)
        self._order_rest()
        return rows

    def running(self) -> dict[int, int]:
        """Return the tokens that each admitted, unfinished row has generated."""
        return {self._pool.row_of[k]: tokens for k, tokens in self._meter.generated().items()}

    def _order_rest(self) -> None:
        """Serve what was never admitted in the order of the last plan, or depth-first."""
        self.close()
        self._planning = self._choice = None
        rest = self._policy.never_admitted()
        if self.scheduler == "fcfs" or not len(rest):
            self._policy.adopt(StaticOrder(np.arange(len(rest))), rest)
        elif self.scheduler == "dfs":
            self._policy.adopt(StaticOrder(take(self.workload, rest).dfs_order), rest)
        else:
            plan = self._question(rest, (self.scheduler,)).plan(self.scheduler)
            self._policy.adopt(plan.policies[0], rest)

    @property
    def num_waiting(self) -> int:
        """Requests that were never admitted."""
        return len(self._policy.never_admitted())

    @property
    def unfinished(self) -> bool:
        """Whether any request has not finished."""
        return self._session.unfinished

    def steps(self) -> Iterator[list[Answer]]:
        """Step until all requests are finished. Yields the answers of every step."""
        try:
            while self.unfinished:
                yield self.step()
        finally:
            self.close()
        self._report.end(self._elapsed)

    def step(self) -> list[Answer]:
        """Run one step of the engine and return its answers."""
        start = self._now()
        if self._began is None:
            self._began = start
        answers, row = self._session.step()
        for answer in answers:
            self._report.record(answer, self._results)
            self._ends.append(self._elapsed)
        self._unspent += self._now() - start
        self._still = self._still + 1 if row is None and not answers else 0
        if row is not None:
            self._work.append(self._meter.sums(row))
            self._seconds.append(self._unspent)
            if self._settings.traced:
                began = max(0.0, self._elapsed - self._unspent)
                self._log.note(began, self._unspent, row, self._work[-1])
            self._report.preemptions += len(row["preempted"])
            self._report.steps += 1
            self._unspent = 0.0
        elif self._still > STILL_STEPS:
            raise RuntimeError("the engine computes nothing although requests are left")
        self._plan()
        self._tell()
        return answers

    def close(self) -> None:
        """Stop planning."""
        if self._planning is not None:
            self._planning.cancel()

    def track(self) -> StepTrack:
        """Return the steps for a trace, if the settings ask for it."""
        rows = self._results.rows.items()
        lengths = {k: (row["prompt_tokens"], row["output_tokens"]) for k, row in rows}
        return self._log.track("replica", self.engine, lengths)

    @property
    def _elapsed(self) -> float:
        return 0.0 if self._began is None else self._now() - self._began

    def _plan(self) -> None:
        """Start planning when it is due, and adopt a plan when it is ready."""
        if self._planning is None:
            due = len(self._ends) >= self._due and len(self._work) >= FITTED_STEPS
            rest = self._policy.never_admitted() if due else ()
            if len(rest) < max(2, REST_WORTH_A_PLAN * self._num_served):
                return
            schedulers: tuple[str, ...] = (self._settings.scheduler,)
            if schedulers == ("auto",):  # first the current one, which wins ties
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
        observed = self._pool.observed(self._results)
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
        self._settings.say(
            f"plan {len(self._report.plans)}, for {made.left:,} requests: {scheduler}; "
            f"predicted time from the first step to the last: {made.predicted_s:,.1f} s"
        )

    def _tell(self) -> None:
        report, elapsed = self._report, self._elapsed
        tokens = report.prompt_tokens + report.output_tokens
        predicted = report.plans[-1].predicted_s if report.plans else None
        self._settings.status(
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
        left = self._num_served - len(self._ends)
        simulated = float(forecast.finish_s[max(0, len(forecast.finish_s) - left) - 1])
        if left >= len(forecast.finish_s):  # still those that ran at the time of the plan
            return max(0.0, forecast.makespan_s - since)
        pace = since / simulated if simulated > 0 else 1.0
        return (forecast.makespan_s - simulated) * pace
