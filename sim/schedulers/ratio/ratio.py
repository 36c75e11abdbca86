"""`ratio`: keep the compute of every step in proportion to its memory reads; see docs/ratio.md.

Requests that are bound by memory are *packed*: a request is admitted when it fits the KV cache next
to the running ones for its whole life. All others are *paced*: they supply each step with the
tokens that its KV reads can hide. The price of compute sets this number so that the remaining
compute lasts as long as the remaining reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from bssim.sim.engine import OFFERED, AdmissionPolicy, EngineView
from bssim.sim.lengths import OutputEstimates, OutputEstimator
from bssim.sim.schedulers.blendserve import UnitSeconds, density_order, request_loads
from bssim.sim.schedulers.interface import Plan, PlanContext
from bssim.sim.schedulers.partition import contiguous, round_robin
from bssim.sim.schedulers.ratio.future_kv import ExpectedFuture, FutureKv, KnownFuture
from bssim.sim.schedulers.ratio.learner import Learner, moved
from bssim.sim.schedulers.ratio.options import RatioOptions, margin, paced_share
from bssim.sim.schedulers.ratio.order import (
    is_crowded,
    is_packed,
    kin_first,
    paced_order,
    random_order,
)
from bssim.sim.schedulers.ratio.pace import FULL_SHARE, Pace
from bssim.sim.schedulers.ratio.queues import Queues
from bssim.sim.schedulers.ratio.small_pools import best_plan, is_small
from bssim.sim.schedulers.ratio.step_tokens import StepTokens
from bssim.sim.workload import Workload
from bssim.wording import counted

IntArray = npt.NDArray[np.int64]

LARGE_SHARE = 0.25
"""A paced prompt above this share of the room for paced requests is large. If it does not fit, it
waits alone, and other requests continue."""
LOOK_STEPS = 64
"""Steps between two looks at the future while no request finishes."""


class RatioPolicy(AdmissionPolicy):
    """The run-time half: combines the queues, the future KV use, the pace and the learner."""

    paced = True

    def __init__(
        self,
        workload: Workload,
        requests: IntArray,
        estimator: OutputEstimator,
        unit: UnitSeconds,
        tokens: StepTokens,
        kv_capacity_tokens: int,
        rng: np.random.Generator,
        options: RatioOptions,
    ) -> None:
        self._options = options
        self._workload = workload
        self._unit = unit
        self._capacity = kv_capacity_tokens
        self._limit = (1.0 - paced_share(known=False)) * kv_capacity_tokens
        self._rng = rng
        self._prompt: list[int] = workload.prompt_tokens.tolist()
        self._mine = np.zeros(len(workload), np.bool_)
        self._mine[requests] = True
        self._learner = Learner(workload, self._mine, estimator, options)
        # Requests that were never admitted, without the sample.
        self._unseen = self._mine.copy()
        self._unseen[self._learner.sample] = False
        self._queues = Queues(self._learner.sample)
        self._pace = Pace(tokens)
        self._margin = margin(options.margin, tokens.fixed_share)
        self.num_waiting = len(requests)
        # Is the request packed?
        self._running: dict[int, bool] = {}
        self._packed_running = 0
        self._estimates: OutputEstimates | None = None
        self._future: FutureKv | None = None
        self._candidate = -1
        self._offered_packed = False
        self._crowded = False
        self._closed = False
        self._engine: EngineView | None = None
        self._step = 0
        self._look_at = 0
        self.plans = 0
        if not self._queues.first:
            self._judge(self._learner.known())
            self._plan(self._learner.known())

    # ---- estimates ----

    def _learn(self, engine: EngineView) -> None:
        """Estimate lengths from all admitted requests; plan again if an estimate changed."""
        was = self._crowded
        estimates = self._learner.look(engine, self._running)
        if self._learner.mature:
            self._judge(estimates)
        self._unseen[self._queues.taken] = False
        self._queues.taken.clear()
        old = self._estimates
        if old is not None and self._crowded == was and not moved(estimates, old, self._unseen):
            if isinstance(self._future, ExpectedFuture):
                self._future.curves = self._learner.curves(estimates)
            return
        self._plan(estimates)

    def _plan(self, estimates: OutputEstimates) -> None:
        """Split the requests never admitted into packed and paced ones, and order both."""
        self._estimates = estimates
        self.plans += 1
        unseen, options = self._unseen, self._options
        drawn = partial(
            random_order, self._workload, rng=self._rng, prefix_groups=options.prefix_groups
        )
        loads = request_loads(self._workload, estimates, self._unit, unseen)
        packed = is_packed(self._workload, loads, unseen)
        which = np.flatnonzero(packed)
        # Lists are taken from their ends.
        if estimates.known:
            which = which[np.argsort(estimates.mean[which], kind="stable")]
            self._limit = (1.0 - paced_share(known=True)) * self._capacity
            future: FutureKv = KnownFuture(estimates.mean, self._limit, options.future_kv)
        else:
            which = drawn(packed)
            curves = self._learner.curves(estimates)
            future = ExpectedFuture(curves, self._limit, self._margin, options.future_kv)
        self._future = self._carried(future)
        paced = paced_order(self._workload, loads, unseen & ~packed)[::-1]
        if self._crowded and not packed.any():
            paced = drawn(unseen)  # else all memory-intensive ones would come together
        if not options.prefix_groups:
            paced = self._rng.permutation(paced)
        if self.plans == 1 and options.prefix_groups:
            sample = self._learner.sample
            which = kin_first(self._workload, which[::-1], sample)[::-1]
            paced = kin_first(self._workload, paced[::-1], sample)[::-1]
        self._queues.fill(which, paced, unseen)
        self._candidate = -1
        self._pace.restart(loads, packed)
        self._look_at = 0

    def _judge(self, estimates: OutputEstimates) -> None:
        """Determine whether KV also limits the paced requests."""
        loads = request_loads(self._workload, estimates, self._unit, self._mine)
        self._crowded = is_crowded(self._workload, loads, self._mine, estimates.known)

    def _carried(self, future: FutureKv) -> FutureKv:
        """Add the running packed requests to a new future."""
        engine = self._engine
        if engine is not None:
            for r, packed in self._running.items():
                if packed:
                    done = engine.generated_tokens(r)
                    future.add(r, engine.step, self._prompt[r] + done, done)
        return future

    # ---- a step ----

    @property
    def _packing(self) -> bool:
        """Whether any packed request waits or runs."""
        return bool(self._queues.packed) or self._packed_running > 0

    def begin_step(self, engine: EngineView) -> None:
        """See `AdmissionPolicy.begin_step`."""
        self._engine = engine
        step = self._step = engine.step
        self._closed = False
        sampling = bool(self._queues.first)
        if not sampling and step >= self._learner.lesson_at and self.num_waiting:
            self._learn(engine)
        limited = self._crowded or self._packing
        future = self._future  # None while the sample runs, or if it was the whole pool
        if limited and not sampling and future is not None and step >= self._look_at:
            self._look(engine, future)
        if self._options.pacing and (sampling or limited):
            self._pace.begin_step(engine.decodes, engine.decode_context_tokens)
        else:
            self._pace.free_step()

    def _look(self, engine: EngineView, future: FutureKv) -> None:
        """Find the next packed request that fits, and the price at which compute lasts."""
        self._look_at = self._step + LOOK_STEPS
        if not self._queues.any_paced:
            future.limit = float(self._capacity)  # no paced request needs room
        future.look(self._step)
        self._candidate = self._fitting()
        if not self._options.drain_reserve:
            return
        # Where KV limits paced requests alone, what it holds now follows from the pace itself,
        # and no drain is in the steps to come.
        paced_alone = self._crowded and not self._packing
        full = max(engine.decode_context_tokens, FULL_SHARE * self._limit)
        if paced_alone:
            full = float(self._capacity)
        assert self._estimates is not None
        certain = self._estimates.known or paced_alone
        self._pace.set_price(future, full, crowded=self._crowded, certain=certain)

    def _fitting(self) -> int:
        """Return the position, from the end, of a packed request that fits, or -1."""
        future = self._future
        if not self._queues.packed or future is None:
            return -1
        assert self._estimates is not None
        place, requests, generated = self._queues.candidates(self._estimates.known)
        context = self._workload.prompt_tokens[requests] + generated
        found = future.first_fit(requests, context, generated)
        return int(place[found]) if found >= 0 else -1

    def peek(self) -> int:
        """See `AdmissionPolicy.peek`."""
        queues = self._queues
        self._offered_packed = False
        idle = not self._running
        open_ = idle or self._pace.budget >= 1
        if queues.first:
            return queues.first[0] if open_ else -1
        if self._candidate >= 0:
            self._offered_packed = True
            return queues.packed[-1 - self._candidate]
        if open_ and (idle or not self._closed):
            request = queues.next_paced(self._packing)
            if request >= 0:
                return request
            if queues.packed and idle:  # never leave an idle engine without work
                self._candidate = 0
                self._offered_packed = True
                return queues.packed[-1]
        return -1

    def offer(self) -> tuple[Sequence[int], int]:
        """See `AdmissionPolicy.offer`."""
        request, queues = self.peek(), self._queues
        if request < 0:
            return (), 0
        limit = self.token_limit(request)
        if not self._running or self._offered_packed:
            return (request,), limit
        if queues.first:
            return tuple(islice(queues.first, OFFERED)), limit
        return (request,) if queues.resume else queues.paced[: -OFFERED - 1 : -1], limit

    def token_limit(self, request: int) -> int:
        """See `AdmissionPolicy.token_limit`. A packed request never waits for the pace."""
        pace, running = self._pace, self._running
        budget = int(pace.budget)
        packed = not running or running.get(request, self._offered_packed)
        least = pace.least if packed else 0
        return budget if budget > least else least

    def blocked(self, request: int) -> bool:
        """Set aside a request that does not fit. Paced requests may still fit."""
        if self._offered_packed:
            self._candidate = -1
            return True
        queues = self._queues
        large = self._prompt[request] > LARGE_SHARE * (self._capacity - self._limit)
        if large and self._packing and not queues.resume and len(queues.paced) > 1:
            queues.set_aside()
            return True
        self._closed = True
        return False

    def admitted(self, request: int, cached_tokens: int) -> None:
        """See `AdmissionPolicy.admitted`."""
        self._admit((request,))

    def all_admitted(
        self, requests: Sequence[int], cached_tokens: Sequence[int], tokens: Sequence[int]
    ) -> None:
        """See `AdmissionPolicy.all_admitted`."""
        self._admit(requests)
        self._pace.budget -= sum(tokens)

    def _admit(self, requests: Sequence[int]) -> None:
        """Move offered requests to the running ones; several are all of the sample, or paced."""
        n = len(requests)
        self.num_waiting -= n
        queues, packed = self._queues, self._offered_packed
        # The long ones of the sample are packed as soon as there is a plan to say so.
        packs = packed or bool(queues.first)
        self._packed_running += n * packs
        self._running |= dict.fromkeys(requests, packs)
        if queues.first:
            for _ in requests:
                queues.first.popleft()
        elif packed:
            (request,) = requests
            queues.packed.pop(-1 - self._candidate)
            future = self._future
            assert future is not None
            done = queues.kept.get(request, 0)
            future.add(request, self._step, self._prompt[request] + done, done)
            self._use_up(requests)
            future.look(self._step)
            self._candidate = self._fitting()
        elif queues.resume:
            queues.resume.pop()
        else:
            del queues.paced[-n:]
            self._use_up(requests)
            if not queues.any_paced:
                self._look_at = 0  # packed ones may have all the room

    def _use_up(self, requests: Sequence[int]) -> None:
        """Remove requests from the plan."""
        self._queues.taken += requests
        self._pace.use_up(requests)

    def prefilled(self, request: int, tokens: int) -> None:
        """See `AdmissionPolicy.prefilled`."""
        self._pace.budget -= tokens

    def finished(self, request: int) -> None:
        """See `AdmissionPolicy.finished`."""
        self.all_finished((request,))

    def all_finished(self, requests: Sequence[int]) -> None:
        """See `AdmissionPolicy.all_finished`."""
        running, future = self._running, self._future
        self._learner.finished(requests)
        for r in requests:
            if running.pop(r):
                self._packed_running -= 1
                if future is not None:
                    future.remove(r)
                    self._look_at = 0

    def preempted(self, request: int) -> None:
        """See `AdmissionPolicy.preempted`."""
        self.num_waiting += 1
        queues = self._queues
        assert self._engine is not None
        queues.kept[request] = self._engine.generated_tokens(request)
        if self._running.pop(request):
            self._packed_running -= 1
            if self._future is None:
                queues.first.appendleft(request)
                return
            self._future.remove(request)
            queues.packed.append(request)
            self._candidate = -1
            self._look_at = self._step + LOOK_STEPS
        else:
            queues.resume.append(request)

    def notes(self) -> tuple[str, ...]:
        """See `AdmissionPolicy.notes`."""
        return (
            f"ratio: {counted(len(self._learner.sample), 'request')} sampled, "
            f"{counted(self.plans, 'plan')}",
        )


@dataclass(frozen=True)
class Ratio:
    """See `RatioPolicy`. Replicas get packed requests in turn, and runs of the paced order."""

    name: str = "ratio"
    options: RatioOptions = field(default_factory=RatioOptions)

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`."""
        if self.options.small_pools and is_small(context):
            alone = replace(self, options=replace(self.options, small_pools=False))
            return best_plan(context, alone)
        workload, unit = context.workload, UnitSeconds.of(context.cost_model)
        estimates = context.estimator.final()
        parts: Sequence[IntArray] = [np.arange(len(workload), dtype=np.int64)]
        if context.replicas > 1:
            everything = np.ones(len(workload), np.bool_)
            loads = request_loads(workload, estimates, unit)
            packed = is_packed(workload, loads, everything)
            longest = np.flatnonzero(packed)
            longest = longest[np.argsort(-estimates.mean[longest], kind="stable")]
            order = density_order(workload, loads, ~packed, ascending=True)
            parts = [
                np.concatenate(pair)
                for pair in zip(
                    round_robin(longest, context.replicas),
                    contiguous(order, context.replicas, loads.compute_s),
                    strict=True,
                )
            ]
        tokens = StepTokens(
            context.cost_model, context.overlap, context.engine, context.kv_capacity_tokens
        )
        policies = tuple(
            RatioPolicy(
                workload,
                part,
                context.estimator,
                unit,
                tokens,
                context.kv_capacity_tokens,
                rng,
                self.options,
            )
            for part, rng in zip(parts, context.rng.spawn(context.replicas), strict=True)
        )
        return Plan(policies, estimates.mean)
