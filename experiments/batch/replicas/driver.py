"""The driver: hands shards to the replicas and writes what they send into one results file.

A replica that has served its shard takes the next one that waits. When a replica fails, what is
left of its shard is split among the others in the same way, and they serve these shards after their
own. No other process writes results, so a killed driver resumes like a run on one engine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from bssim.backends.vllm import Prompt, devices
from bssim.experiments.batch.replicas.fleet import Call, Fleet, Need
from bssim.experiments.batch.replicas.replica import Progress, Shard
from bssim.experiments.batch.replicas.shards import split, with_lines
from bssim.experiments.batch.run_lines import CheckedBatch, Line, read_lines
from bssim.experiments.batch.run_loop import RunSettings
from bssim.experiments.batch.run_pool import Pool, pool_of
from bssim.experiments.batch.run_report import PlanMade, RunReport, RunStatus
from bssim.experiments.batch.run_results import Results
from bssim.experiments.ray_cluster import connected
from bssim.wording import counted

LINES_AT_ONCE = 2048
"""Lines that a replica turns into token ids in one call."""


def run_on_replicas(
    arguments: Any,
    engine_args: Sequence[str],
    file: CheckedBatch,
    results: Results,
    report: RunReport,
    settings: RunSettings,
) -> None:
    """Serve the requests that have no row in ``results`` on ``report.replicas`` engines.

    ``arguments`` are the parsed ``engine_args``. Raises InputError if Ray is not installed, if the
    cluster has no room for the replicas, and if no engine starts.
    """
    began = settings.now()
    need = Need(*devices(arguments))
    with connected("--dp", report.replicas) as ray:
        need.require(ray, report.replicas)
        fleet = Fleet(ray, report.replicas, need, (settings.scheduler, settings.seed), settings.say)
        try:
            fleet.start(arguments.model, engine_args)
            report.start_s = settings.now() - began
            pool = _rendered(fleet, file, results, report)
            report.render_s = settings.now() - began - report.start_s
            if pool is not None and pool.left:
                _Run(fleet, pool, file, results, report, settings).serve()
        finally:
            report.lost_replicas = fleet.lost
            fleet.close()


def _rendered(fleet: Fleet, file: CheckedBatch, results: Results, report: RunReport) -> Pool | None:
    """Let the replicas turn all lines into token ids, and write rows for those they refuse."""
    lines = read_lines(file)
    parts: Iterator[list[Line]] = iter(lambda: list(islice(lines, LINES_AT_ONCE)), [])
    prompts: dict[int, Prompt] = {}
    for _, found in fleet.give("render", parts, lambda call: [call.piece]):
        for index, prompt in found or ():
            if isinstance(prompt, Prompt):
                prompts[index] = prompt
            else:
                report.record(prompt, results)
    return pool_of(file.path.name, dict(sorted(prompts.items())), results)


class _Run:
    """A run from the first step of any replica to the last row."""

    def __init__(
        self,
        fleet: Fleet,
        pool: Pool,
        file: CheckedBatch,
        results: Results,
        report: RunReport,
        settings: RunSettings,
    ) -> None:
        self._fleet, self._pool, self._file = fleet, pool, file
        self._results, self._report, self._settings = results, report, settings
        self._heard: dict[Call[Shard], Progress] = {}
        """The last report about every shard that was begun."""
        self._at: dict[Call[Shard], float] = {}
        """When a shard was begun, in seconds of this run."""
        self._running: list[Call[Shard]] = []
        self._began = settings.now()

    def serve(self) -> None:
        """Serve all shards, and the shards that remain when a replica fails."""
        shards = self._shards(self._pool)
        for call, progress in self._fleet.give("serve", shards, self._rest):
            if progress is None:
                self._running.remove(call)
                continue
            self._hear(call, progress)
            self._report.steps = sum(r.steps for r in self._reports)
            self._report.preemptions = sum(r.preemptions for r in self._reports)
            self._report.plans = self._plans()
            self._tell()
        self._report.end(self._elapsed)

    @property
    def _elapsed(self) -> float:
        return self._settings.now() - self._began

    @property
    def _reports(self) -> list[RunReport]:
        return [progress.report for progress in self._heard.values() if progress.report]

    def _shards(self, pool: Pool) -> list[Shard]:
        """Split what is left of a pool among all replicas."""
        given = self._settings
        parts = split(pool, self._results, len(self._fleet), given.scheduler, given.seed)
        sizes = " + ".join(f"{len(part.left):,}" for part in parts)
        given.say(f"{counted(len(pool.left), 'request')} left, in shards of {sizes}")
        return list(with_lines(parts, self._file, self._results))

    def _rest(self, call: Call[Shard]) -> list[Shard]:
        """Return the shards for the other replicas after the replica of ``call`` failed."""
        if call in self._running:
            self._running.remove(call)
        pool = call.piece.pool
        left = [row for row in pool.left if pool.indices[row] not in self._results.rows]
        return self._shards(replace(pool, left=left)) if left else []

    def _hear(self, call: Call[Shard], progress: Progress) -> None:
        """Write the results that a replica sends."""
        if not self._at:
            self._began = self._settings.now()
        if call not in self._at:
            self._at[call] = self._elapsed
            self._running.append(call)
        for answer in progress.answers:
            self._report.record(answer, self._results)
        for event in progress.said:
            self._settings.say(f"replica {call.replica}: {event}")
        self._heard[call] = progress

    def _plans(self) -> list[PlanMade]:
        """Return the plans of all replicas, in seconds of this run."""
        plans = [
            replace(
                plan,
                replica=call.replica,
                at_s=self._at[call] + plan.at_s,
                predicted_s=self._at[call] + plan.predicted_s,
            )
            for call, progress in self._heard.items()
            if progress.report is not None
            for plan in progress.report.plans
        ]
        return sorted(plans, key=lambda plan: plan.at_s)

    def _tell(self) -> None:
        """Report the progress of all replicas."""
        report, elapsed = self._report, self._elapsed
        heard = [self._heard[call].status for call in self._running]
        running = [status for status in heard if status is not None]
        if not running:  # no replica has made a step
            return
        names = ", ".join(dict.fromkeys(status.scheduler for status in running))
        num_left = report.num_requests - len(self._results.rows)
        waiting = num_left - sum(s.num_requests - s.finished for s in running)
        left = [status.left_s for status in running if status.left_s is not None]
        last = {plan.replica: plan.predicted_s for plan in report.plans}
        self._settings.status(
            RunStatus(
                finished=len(self._results.rows),
                num_requests=report.num_requests,
                elapsed_s=elapsed,
                throughput_tok_s=(report.prompt_tokens + report.output_tokens) / max(elapsed, 1e-9),
                scheduler=f"{names} on {len(running)} of {report.replicas} replicas",
                left_s=None if waiting or len(left) < len(running) else max(left),
                predicted_s=max(last.values(), default=None),
            )
        )
