"""`ratio`: hold every step's compute in proportion to its memory reads; see docs/ratio.md.

Requests that are bound by memory are *packed*: one is admitted when it fits the KV cache for its
whole life to come beside those that run. All others are *paced*: they feed each step the tokens
that its KV reads pay for, at the price of compute at which the supply lasts as long as the reads.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from bssim.sim.lengths.estimators import OutputEstimates, OutputEstimator
from bssim.sim.lengths.survival import SurvivalCurves
from bssim.sim.schedulers.blendserve.resource_tree import UnitSeconds, density_order, request_loads
from bssim.sim.schedulers.interface import UNLIMITED, AdmissionPolicy, EngineView, Plan, PlanContext
from bssim.sim.schedulers.partition import contiguous, round_robin
from bssim.sim.schedulers.ratio.future_kv import ExpectedFuture, FutureKv, KnownFuture
from bssim.sim.schedulers.ratio.options import RatioOptions, paced_share
from bssim.sim.schedulers.ratio.order import is_crowded, is_packed, paced_order, random_order
from bssim.sim.schedulers.ratio.step_tokens import StepTokens
from bssim.sim.workload.workload import Workload

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LARGE_SHARE = 0.25
"""A paced prompt that takes this share of the room left to paced requests is large: without room
it waits alone, and others go on."""
LOOK_STEPS = 64
"""Steps between two looks at the future while nobody finishes."""
FULL_SHARE = 0.75
"""Least share of the packed limit that waiting packed requests are supposed to run at: while the
cache fills up for the first time, what it holds says little about later steps."""
DRAINS = (0.5, 0.75, 1.0)
"""Parts of the expected steps to come that the price is averaged over where lengths are not known.
The expectation is drawn up by tails that few requests reach, and a token kept for a drain that ends
early saves nothing, whereas one spent below the kink of the overlap model does."""
CANDIDATES = 64
"""Packed requests of known length that a look tries, spread over the waiting ones."""
HEADS = 4
"""The same where lengths are not known: the next ones in line."""
MATURE_STEPS = 1000
"""Steps before which estimates do not say whether KV limits the paced requests: nobody has
generated more tokens than this, so that long outputs look short."""
FIRST_LESSON_STEPS = 500
LESSON_GROWTH = 1.2
"""Steps to the first look at output lengths, and the factor to every next one."""
CHANGED = 0.1
"""Relative change of any estimate that is worth a new order."""


class RatioPolicy(AdmissionPolicy):
    """The run-time half, an `AdmissionPolicy`."""

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
        self._estimator = estimator
        self._unit = unit
        self._tokens = tokens
        self._capacity = kv_capacity_tokens
        self._limit = (1.0 - paced_share(known=False)) * kv_capacity_tokens
        self._rng = rng
        self._prompt: list[int] = workload.prompt_tokens.tolist()
        self._unseen = np.zeros(len(workload), np.bool_)
        self._unseen[requests] = True
        self._mine = self._unseen.copy()
        # Every replica learns from its own part of the sample, rarest prefixes first: whoever
        # shares a prefix with few may be what fills the memory. Equally rare ones stay with their
        # kin: the sample of a small pool with many subtrees is a large part of it.
        sample = estimator.sample[self._unseen[estimator.sample]]
        node = workload.node[sample]
        self._sample: IntArray = sample[np.lexsort((node, workload.requests_below[node]))]
        self._unseen[self._sample] = False
        self._first = deque(self._sample.tolist())
        self.num_waiting = len(requests)
        self._running: dict[int, bool] = {}
        self._done = np.zeros(len(workload), np.bool_)
        self._packed: list[int] = []
        self._paced: list[int] = []
        # Paced requests whose prompt had no room beside the packed ones.
        self._large: list[int] = []
        self._resume: list[int] = []
        self._taken: list[int] = []
        # Tokens that preempted requests had generated: what they hold when they come back.
        self._kept: dict[int, int] = {}
        self._estimates: OutputEstimates | None = None
        self._future: FutureKv | None = None
        self._candidate = -1
        self._offered_packed = False
        self._packed_running = 0
        self._price = tokens.full_price
        self._crowded = False
        self._budget = 0.0
        self._carry = 0.0
        self._closed = False
        self._engine: EngineView | None = None
        self._step = 0
        self._look_at = 0
        self._lesson_at = 0
        self.plans = 0
        if not self._first:
            self._lesson_at = UNLIMITED
            self._judge(estimator.final())
            self._plan(estimator.final())

    # ---- what is believed ----

    def _learn(self, engine: EngineView) -> None:
        """Estimate lengths from all that ran or runs; plan anew if that changes an estimate."""
        was = self._crowded
        uses_all = self._estimator.uses_all and self._options.learning
        if uses_all:
            running = np.array(list(self._running), dtype=np.int64)
            requests = np.concatenate([np.flatnonzero(self._done), running])
        else:
            requests = self._sample
        done = self._done[requests]
        generated = np.where(done, self._workload.output_tokens[requests], 0)
        for k in np.flatnonzero(~done).tolist():
            generated[k] = engine.generated_tokens(int(requests[k]))
        estimates = self._estimator.estimate(requests, generated, done)
        if not uses_all and bool(done.all()):
            self._lesson_at = UNLIMITED
        else:
            self._lesson_at = max(FIRST_LESSON_STEPS, int(LESSON_GROWTH * engine.step))
        if engine.step >= MATURE_STEPS or self._lesson_at == UNLIMITED:
            self._judge(estimates)
        self._unseen[self._taken] = False
        self._taken.clear()
        known = self._estimates
        if known is not None and self._crowded == was:
            moved = np.abs(estimates.mean - known.mean) > CHANGED * known.mean
            if not bool(moved[self._unseen].any()):
                if isinstance(self._future, ExpectedFuture):
                    self._future.curves = self._curves(estimates)
                return
        self._plan(estimates)

    def _plan(self, estimates: OutputEstimates) -> None:
        """Part the requests never admitted into packed and paced ones, and order both."""
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
            future = ExpectedFuture(
                self._curves(estimates), self._limit, options.margin, options.future_kv
            )
        self._future = self._carried(future)
        again = [r for r in self._packed if not unseen[r]]
        self._packed = which.tolist() + again
        paced = paced_order(self._workload, loads, unseen & ~packed)[::-1]
        if self._crowded and not packed.any():
            paced = drawn(unseen)  # or the memory-intensive ones came all at once
        if not options.prefix_groups:
            paced = self._rng.permutation(paced)
        self._paced = paced.tolist()
        self._large.clear()
        self._candidate = -1
        self._load = (loads.prefill_tokens + loads.output_tokens).tolist()
        self._packed_of = packed.tolist()
        self._reads = loads.kv_token_steps.tolist()
        self._supply = float(sum(self._load))
        # Of paced and of packed requests.
        self._reads_left = [float(sum(loads.kv_token_steps[k].tolist())) for k in (~packed, packed)]
        self._look_at = 0

    def _judge(self, estimates: OutputEstimates) -> None:
        """Find out whether KV limits the paced requests, too."""
        loads = request_loads(self._workload, estimates, self._unit, self._mine)
        self._crowded = is_crowded(self._workload, loads, self._mine, estimates.known)

    def _curves(self, estimates: OutputEstimates) -> SurvivalCurves:
        """Return survival curves: the estimator's, or lognormal ones of its moments."""
        if estimates.survival is not None and self._options.kaplan_meier:
            return estimates.survival
        return SurvivalCurves.lognormal(estimates.mean, estimates.second_moment)

    def _carried(self, future: FutureKv) -> FutureKv:
        """Enter the packed requests that run, as the last future had them."""
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
        """Does any packed request wait or run?"""
        return bool(self._packed) or self._packed_running > 0

    def begin_step(self, engine: EngineView) -> None:
        """See `AdmissionPolicy.begin_step`."""
        self._engine = engine
        step = self._step = engine.step
        self._closed = False
        if not self._first:
            if step >= self._lesson_at and self.num_waiting:
                self._learn(engine)
            future = self._future  # none if the sample was all there is
            if future is not None and step >= self._look_at and (self._packing or self._crowded):
                self._look(engine, future)
        tokens = self._tokens
        decodes = engine.decodes
        if self._options.pacing and (self._first or self._packing or self._crowded):
            low, high, part = tokens.around(self._price, engine.decode_context_tokens)
            wanted = low + part * (high - low) + self._carry
            whole = high if wanted - low >= high - wanted else low
            self._carry = min(max(wanted - whole, low - high), high - low)
            self._budget = whole - decodes
        else:
            self._budget = UNLIMITED

    def _look(self, engine: EngineView, future: FutureKv) -> None:
        """Find the next packed request that fits, and the price at which compute lasts."""
        self._look_at = self._step + LOOK_STEPS
        if not (self._paced or self._large):
            future.limit = float(self._capacity)  # nobody left to leave room for
        future.look(self._step)
        self._candidate = self._fitting()
        if not self._options.drain_reserve:
            return
        steps, kv = future.profile()
        left = future.remaining_tokens()
        full = max(engine.decode_context_tokens, FULL_SHARE * self._limit)
        if self._crowded and not self._packing:
            full = float(self._capacity)  # what it holds now follows from the pace itself
        paced_reads, packed_reads = self._reads_left
        steps = np.append(steps, (packed_reads + paced_reads * self._crowded) / full)
        kv = np.append(kv, full)
        assert self._estimates is not None
        # Where KV limits paced requests alone, no drain is in the steps to come.
        whole = self._estimates.known or (self._crowded and not self._packing)
        drains = (1.0,) if whole else DRAINS
        prices = [
            self._tokens.price_for(self._supply + left, steps * share, kv) for share in drains
        ]
        self._price = sum(prices) / len(prices)

    def _fitting(self) -> int:
        """Return the position, from the end, of a packed request that fits, or -1."""
        waiting, future = self._packed, self._future
        if not waiting or future is None:
            return -1
        n = len(waiting)
        assert self._estimates is not None
        if not self._estimates.known:
            at = np.arange(min(n, HEADS))
        elif n <= CANDIDATES:
            at = np.arange(n)
        else:
            at = np.unique(np.geomspace(1, n, CANDIDATES).astype(np.int64)) - 1
        requests = np.array([waiting[-1 - k] for k in at.tolist()], dtype=np.int64)
        generated = np.array([self._kept.get(r, 0) for r in requests.tolist()], dtype=np.int64)
        context = self._workload.prompt_tokens[requests] + generated
        found = future.first_fit(requests, context, generated)
        return int(at[found]) if found >= 0 else -1

    def peek(self) -> int:
        """See `AdmissionPolicy.peek`."""
        self._offered_packed = False
        if self._first:
            return self._first[0] if self._budget >= 1 or not self._running else -1
        if self._candidate >= 0:
            self._offered_packed = True
            return self._packed[-1 - self._candidate]
        if (self._budget >= 1 and not self._closed) or not self._running:
            if self._resume:
                return self._resume[-1]
            if not self._packing:
                self._paced.extend(self._large)
                self._large.clear()
            elif not self._paced and self._large:
                self._paced.append(self._large.pop())
            if self._paced:
                return self._paced[-1]
            if self._packed and not self._running:  # never leave an idle engine without work
                self._candidate = 0
                self._offered_packed = True
                return self._packed[-1]
        return -1

    def token_limit(self, request: int) -> int:
        """See `AdmissionPolicy.token_limit`; a packed request is never kept waiting for pace."""
        if self._running.get(request, self._offered_packed) or not self._running:
            return max(int(self._budget), self._tokens.multiple)
        return max(int(self._budget), 0)

    def blocked(self, request: int) -> bool:
        """Set aside what has no room; paced requests may still have."""
        if self._offered_packed:
            self._candidate = -1
            return True
        large = self._prompt[request] > LARGE_SHARE * (self._capacity - self._limit)
        if large and self._packing and not self._resume and len(self._paced) > 1:
            self._large.append(self._paced.pop())
            return True
        self._closed = True
        return False

    def admitted(self, request: int, cached_tokens: int) -> None:
        """See `AdmissionPolicy.admitted`."""
        self.num_waiting -= 1
        packed = self._offered_packed
        self._running[request] = packed
        if self._first:
            self._first.popleft()
            # The long ones of the sample are packed as soon as there is a plan to say so.
            self._running[request] = True
            self._packed_running += 1
            return
        if packed:
            self._packed.pop(-1 - self._candidate)
            self._packed_running += 1
            future = self._future
            assert future is not None
            done = self._kept.get(request, 0)
            future.add(request, self._step, self._prompt[request] + done, done)
            self._use_up(request)
            future.look(self._step)
            self._candidate = self._fitting()
        elif self._resume:
            self._resume.pop()
        else:
            self._paced.pop()
            self._use_up(request)
            if not (self._paced or self._large):
                self._look_at = 0  # packed ones may have all the room

    def _use_up(self, request: int) -> None:
        """Take a request out of what is left to compute and read, once."""
        self._taken.append(request)
        self._supply -= self._load[request]
        self._reads_left[self._packed_of[request]] -= self._reads[request]
        self._load[request] = self._reads[request] = 0.0

    def prefilled(self, request: int, tokens: int) -> None:
        """See `AdmissionPolicy.prefilled`."""
        self._budget -= tokens

    def finished(self, request: int) -> None:
        """See `AdmissionPolicy.finished`."""
        self._done[request] = True
        if self._running.pop(request):
            self._packed_running -= 1
            if self._future is not None:
                self._future.remove(request)
                self._look_at = 0

    def preempted(self, request: int) -> None:
        """See `AdmissionPolicy.preempted`."""
        self.num_waiting += 1
        assert self._engine is not None
        self._kept[request] = self._engine.generated_tokens(request)
        if self._running.pop(request):
            self._packed_running -= 1
            if self._future is None:
                self._first.appendleft(request)
                return
            self._future.remove(request)
            self._packed.append(request)
            self._candidate = -1
            self._look_at = self._step + LOOK_STEPS
        else:
            self._resume.append(request)

    def notes(self) -> tuple[str, ...]:
        """See `AdmissionPolicy.notes`."""
        return (f"ratio: {len(self._sample)} requests sampled, {self.plans} plans",)


@dataclass(frozen=True)
class Ratio:
    """See `RatioPolicy`. Replicas take turns over the packed requests, cut the paced ones."""

    name: str = "ratio"
    options: RatioOptions = field(default_factory=RatioOptions)

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`."""
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
