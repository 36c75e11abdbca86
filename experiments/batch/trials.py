"""Simulate the orders of a pool, two at a time.

1. Simulate every order with the main scenario of output lengths. The sequence in which a run-time
   scheduler admitted its requests is also tried as a file.
2. Simulate the file's own order and the fastest others with the remaining scenarios.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bssim.experiments.batch.comparison import OWN, Mode, OrderResult
from bssim.experiments.batch.lengths import Lengths
from bssim.experiments.batch.serving import FileOrder, Serving
from bssim.sim.lengths import OutputEstimator
from bssim.sim.schedulers import Scheduler, fixed_order_names
from bssim.sim.schedulers.ratio import MOST_REQUESTS, Ratio, RatioOptions
from bssim.sim.workload import Workload

FINALISTS = 2
"""How many orders of each mode, besides the file's own, are simulated in every scenario."""
INLINE_REQUESTS = 2000
"""Pools up to this size are simulated in this process, which is faster than starting others."""
JOBS = 2

Progress = Callable[[int, int], None]
"""Called with (finished simulations, all simulations)."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One simulated order."""

    scheduler: str
    mode: Mode
    makespan_s: float
    throughput_tok_s: float
    sharing: float
    share_of_bound: float
    order: FileOrder
    """The sequence in which requests were admitted."""

    def result(self, scenarios: dict[str, float]) -> OrderResult:
        """Return the order with its speed-up in each scenario, the main one first."""
        return OrderResult(
            scheduler=self.scheduler,
            mode=self.mode,
            makespan_s=self.makespan_s,
            throughput_tok_s=self.throughput_tok_s,
            sharing=self.sharing,
            share_of_bound=self.share_of_bound,
            speedup=next(iter(scenarios.values())),
            scenarios=scenarios,
            order=self.order if self.mode == "file" else None,
        )


class Trials:
    """Simulations of one pool, two at a time, each in its own process."""

    def __init__(
        self,
        pool: Workload,
        lengths: Lengths,
        serving: Serving,
        progress: Progress | None,
        *,
        of_requests: int | None = None,
    ) -> None:
        """``of_requests``: if the pool is a sample, the size of the whole pool."""
        self._pool, self._lengths, self._serving = pool, lengths, serving
        self._progress = progress
        self._large = (of_requests or len(pool)) > MOST_REQUESTS
        self._done = self._asked = 0

    def main(self, schedulers: Sequence[str], *, file_only: bool = False) -> list[Trial]:
        """Simulate orders with the main scenario; ``file_only`` leaves out run-time orders."""
        main = self._lengths.main
        first = self._run([(name, None, main) for name in schedulers])
        fixed = fixed_order_names()
        trials = [replace(t, mode="file") for t in first if t.scheduler in fixed]
        at_run_time = [t for t in first if t.scheduler not in fixed]
        again = self._run([(t.scheduler, t.order, main) for t in at_run_time])
        return [*trials, *([] if file_only else at_run_time), *again]

    def results(self, schedulers: Sequence[str], *, file_only: bool = False) -> list[OrderResult]:
        """Simulate orders with the main scenario, and the best of them with every scenario."""
        trials = self.main(schedulers, file_only=file_only)
        main, *others = self._lengths.scenarios
        own = next(t for t in trials if t.scheduler == OWN)
        finalists = [own]
        for mode in ("file", "run_time"):
            faster = [t for t in trials if t.mode == mode and t.makespan_s < own.makespan_s]
            finalists += sorted(faster, key=lambda t: t.makespan_s)[:FINALISTS]
        asked = [
            (t.scheduler, t.order if t.mode == "file" else None, scenario)
            for t in finalists
            for scenario in others
        ]
        seconds = [found.makespan_s for found in self._run(asked)]
        k = len(others)
        times = {id(t): seconds[i * k : (i + 1) * k] for i, t in enumerate(finalists)}
        base = [own.makespan_s, *times[id(own)]]
        results = []
        for trial in trials:
            mine = [trial.makespan_s, *times.get(id(trial), [])]
            ratios = [b / t for b, t in zip(base, mine, strict=False)]
            results.append(trial.result(dict(zip((main, *others), ratios, strict=False))))
        return results

    def _run(self, asked: Sequence[tuple[str, FileOrder | None, str]]) -> list[Trial]:
        """Simulate each (scheduler, order as a file or None, scenario); keep their order."""
        self._asked += len(asked)
        tasks = [self._task(*one) for one in asked]
        found: list[Trial] = []
        if len(self._pool) <= INLINE_REQUESTS or len(tasks) < 2:
            trials = (_simulate(*task) for task in tasks)
        else:
            from joblib import Parallel, delayed

            parallel = Parallel(n_jobs=JOBS, return_as="generator")
            trials = parallel(delayed(_simulate)(*task) for task in tasks)
        for trial in trials:
            found.append(trial)
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._asked)
        return found

    def _task(
        self, scheduler: str, order: FileOrder | None, scenario: str
    ) -> tuple[Serving, Workload, str | Scheduler, str | OutputEstimator]:
        lengths = self._lengths
        outputs = lengths.scenarios[scenario]
        workload = self._pool
        if scenario != lengths.main or outputs is not workload.output_tokens:
            workload = replace(workload, output_tokens=outputs)
        if order is not None:
            return self._serving, workload, order, lengths.known
        admits: str | Scheduler = scheduler
        if scheduler == "ratio" and self._large:  # a sample must not be served as a small pool
            admits = Ratio(options=RatioOptions(small_pools=False))
        return self._serving, workload, admits, lengths.knowledge(scheduler)


def _simulate(
    serving: Serving,
    workload: Workload,
    scheduler: str | Scheduler,
    knowledge: str | OutputEstimator,
) -> Trial:
    """Simulate one order; return only what is needed, because it comes from another process."""
    found = serving.simulate(workload, scheduler, knowledge)
    return Trial(
        scheduler=found.schedule.scheduler,
        mode="file" if isinstance(scheduler, FileOrder) else "run_time",
        makespan_s=found.makespan_s,
        throughput_tok_s=found.throughput_tok_s,
        sharing=found.sharing,
        share_of_bound=found.share_of_bound,
        order=FileOrder.of(found, serving.dp),
    )
