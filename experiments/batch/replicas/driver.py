"""The driver: deals requests to the replicas and writes what they return into one results file.

1. The requests are split into shards of equal load, one per replica.
2. When no request of a replica waits, all replicas give back those that wait. These are split
   again, because finished and running requests have shown output lengths by then.
3. When a replica fails, its requests are split among the others.

No other process writes results, so a killed driver resumes like a run on one engine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from bssim.backends.vllm import Prompt, devices
from bssim.experiments.batch.replicas.fleet import Fleet, Need
from bssim.experiments.batch.replicas.replica import Offer, Progress
from bssim.experiments.batch.replicas.shards import split
from bssim.experiments.batch.run_lines import CheckedBatch, Line, read_lines
from bssim.experiments.batch.run_loop import RunSettings
from bssim.experiments.batch.run_pool import Pool, pool_of
from bssim.experiments.batch.run_report import PlanMade, RunReport, RunStatus
from bssim.experiments.batch.run_results import Results
from bssim.experiments.ray_cluster import connected
from bssim.wording import counted

AHEAD = 2
"""Calls of `Replica.work` that wait or run at a time, so that an engine never waits for one."""
WAITING = 0.01
"""Requests are split again if at least this share of the pool waits."""
LEARNED = 0.05
"""And if at least this share of the pool has finished since the last time."""
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
    for found in fleet.each("render", parts):
        for index, prompt in found:
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
        self._heard: dict[int, Progress] = {}
        """The last progress of every replica."""
        self._at: dict[int, float] = {}
        """When a replica began, in seconds of this run."""
        self._held: dict[int, set[int]] = {k: set() for k in fleet.alive}
        """Rows of the unfinished requests of each replica."""
        self._waiting: dict[int, int] = {}
        """Requests of each replica that were never admitted."""
        self._line_of: dict[int, Line] = {}
        """The unfinished lines, by row."""
        self._free: set[int] = set()
        """Rows that no replica has."""
        self._offers: dict[int, Offer] = {}
        """What replicas gave back since the last shards."""
        self._told = 0
        """Finished requests that the replicas know."""
        self._unsettled: set[int] = set()
        """Replicas that have not replied to the last `give_back` or `take`."""
        self._learned = len(results.rows)
        """Finished requests when the replicas were last asked to give back requests."""
        self._began = settings.now()

    def serve(self) -> None:
        """Serve all requests that are left."""
        pool = self._fleet.shared(self._pool)
        for k in self._fleet.alive:
            self._fleet.call(k, "begin", pool)
        self._free, row_of = set(self._pool.left), self._pool.row_of
        for line in read_lines(self._file):
            if row_of.get(line.index) in self._free:
                self._line_of[row_of[line.index]] = line
        self._deal()
        for reply in self._fleet.replies():
            if reply.method == "work":
                self._hear(reply.replica, reply.value)
            elif reply.method == "give_back":
                self._offers[reply.replica] = reply.value
                self._free.update(reply.value.rows)
                self._held[reply.replica].difference_update(reply.value.rows)
                self._waiting[reply.replica] = 0
                self._settle(reply.replica)
            elif reply.method == "take":
                self._began_at(reply.replica)
                self._settle(reply.replica)
            elif reply.method is None:
                self._lose(reply.replica)
        self._report.end(self._elapsed)
        if missing := sum(map(len, self._held.values())):
            raise RuntimeError(f"the replicas ended without {counted(missing, 'result')}")

    def _deal(self) -> None:
        """Split the free requests among all replicas."""
        given, replicas = self._settings, self._fleet.alive
        none = Offer([], {})
        offers = [self._offers.get(k, none) for k in replicas]
        running = [offer.running for offer in offers]
        rows = sorted(self._free)
        shards = split(self._pool, rows, self._results, running, given.scheduler, given.seed)
        sizes = " + ".join(f"{len(shard):,}" for shard in shards)
        given.say(f"{counted(len(rows), 'request')} in shards of {sizes}")
        new = dict(islice(self._results.rows.items(), self._told, None))
        finished = self._fleet.shared(new)
        for k, offer, shard in zip(replicas, offers, shards, strict=True):
            kept = set(offer.rows).intersection(shard)
            lines = [self._line_of[row] for row in shard if row not in kept]
            self._held[k].update(shard)
            self._waiting[k] = self._waiting.get(k, 0) + len(shard)
            self._unsettled.add(k)
            self._fleet.call(k, "take", sorted(kept), lines, finished)
            for _ in range(AHEAD if shard else 0):
                self._fleet.call(k, "work")
        self._told += len(new)
        self._free.clear()
        self._offers.clear()

    def _settle(self, replica: int) -> None:
        """Note a reply to `give_back` or `take`. After the last one, free requests are dealt."""
        self._unsettled.discard(replica)
        if self._free and not self._unsettled:
            self._deal()

    def _lose(self, replica: int) -> None:
        """Deal what a failed replica had."""
        self._free |= self._held.pop(replica)
        self._waiting.pop(replica, None)
        self._offers.pop(replica, None)
        self._settle(replica)

    def _hear(self, replica: int, progress: Progress) -> None:
        """Write the results that a replica sends, and let it go on."""
        self._began_at(replica)
        for answer in progress.answers:
            self._report.record(answer, self._results)
            row = self._pool.row_of[answer.index]
            self._held[replica].discard(row)
            self._line_of.pop(row, None)
        for event in progress.said:
            self._settings.say(f"replica {replica}: {event}")
        self._heard[replica] = progress
        self._report.steps = sum(p.report.steps for p in self._heard.values())
        self._report.preemptions = sum(p.report.preemptions for p in self._heard.values())
        self._report.plans = self._plans()
        self._tell()
        if progress.unfinished and self._fleet.calls(replica, "work") < AHEAD:
            self._fleet.call(replica, "work")
        if self._unsettled:
            return
        self._waiting[replica] = progress.num_waiting
        num_finished, num_waiting = len(self._results.rows), sum(self._waiting.values())
        size, alive = len(self._pool.indices), self._fleet.alive
        worth = num_waiting >= max(2 * len(alive), WAITING * size)
        learned = num_finished - self._learned >= LEARNED * size
        if worth and learned and not progress.num_waiting:
            self._learned = num_finished
            self._offers.clear()
            for k in alive:
                self._unsettled.add(k)
                self._fleet.call(k, "give_back")

    def _began_at(self, replica: int) -> None:
        """Note that a replica can begin."""
        if not self._at:
            self._began = self._settings.now()
        self._at.setdefault(replica, self._elapsed)

    @property
    def _elapsed(self) -> float:
        return self._settings.now() - self._began

    def _plans(self) -> list[PlanMade]:
        """Return the plans of all replicas, in seconds of this run."""
        plans = [
            replace(
                plan,
                replica=k,
                at_s=self._at[k] + plan.at_s,
                predicted_s=self._at[k] + plan.predicted_s,
            )
            for k, progress in self._heard.items()
            for plan in progress.report.plans
        ]
        return sorted(plans, key=lambda plan: plan.at_s)

    def _tell(self) -> None:
        """Report the progress of all replicas."""
        report, elapsed = self._report, self._elapsed
        heard = {k: p.status for k, p in self._heard.items() if p.status is not None}
        running = [status for k, status in heard.items() if self._held.get(k)]
        running = running or list(heard.values())  # all have finished
        if not running:  # no replica has made a step
            return
        names = ", ".join(dict.fromkeys(status.scheduler for status in running))
        left = [status.left_s for status in running if status.left_s is not None]
        last = {plan.replica: plan.predicted_s for plan in report.plans}
        self._settings.status(
            RunStatus(
                finished=len(self._results.rows),
                num_requests=report.num_requests,
                elapsed_s=elapsed,
                throughput_tok_s=(report.prompt_tokens + report.output_tokens) / max(elapsed, 1e-9),
                scheduler=f"{names} on {len(running)} of {report.replicas} replicas",
                left_s=None if len(left) < len(running) else max(left),
                predicted_s=max(last.values(), default=None),
            )
        )
