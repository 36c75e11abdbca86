"""The dual scan (BlendServe section 5.3): admit from both ends of a density order.

The left scanner takes compute-intensive requests, the right one memory-intensive requests. KV
memory M is split so that the two together have the density of all remaining requests:

    ML + MR = M,   ML rho(L) + MR rho(R) = M rho(root)

Each side may hold the requests that its part sustains in the steady state, and may prefill the
tokens per step that keep it there.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from itertools import chain, islice

import numpy as np

from bssim.sim.engine import OFFERED, UNLIMITED, AdmissionPolicy, EngineView
from bssim.sim.schedulers.blendserve.blended_order import BlendedOrder
from bssim.sim.schedulers.blendserve.kv_horizon import KvHorizon
from bssim.sim.schedulers.blendserve.planner import BlendPlanner
from bssim.sim.schedulers.blendserve.remaining import RunningWork
from bssim.sim.schedulers.blendserve.resource_tree import UnitSeconds
from bssim.sim.schedulers.blendserve.step_fill import StepFill

LEFT, RIGHT = 0, 1
OUTLIVED = 8.0
"""A left request is past its estimate after this multiple of its estimated steps."""
RETRY_STEPS = 64
"""Steps between checks of a right side that has no room in the future."""
REFRESH_ADMISSIONS = 32
"""Admissions between two partitions of memory: one eighth of a unit."""
REFRESH_STEPS = 64
"""Steps between two partitions, for a scan that follows the remaining work."""


def partition_memory(left: float, right: float, root: float) -> float:
    """Return ML / M for the densities of the two units and of the pool (paper section 5.3).

    The paper does not define the case in which the pool's density is not between the two, or the
    two are equal. Then all memory goes to the side with the nearer density.
    """
    if left > root > right:
        return (root - right) / (left - right)
    return 1.0 if abs(left - root) <= abs(right - root) else 0.0


class DualScan(AdmissionPolicy):
    """The run-time half: two cursors, two budgets; an `AdmissionPolicy` over a `BlendedOrder`.

    The right side admits while it has a free seat, until the request at its cursor is as
    compute-intensive as the pool. The left side is paced: it computes N p/d prompt tokens per step,
    where N follows from the KV that the right side holds in that step. A right side that fills up
    or drains is therefore paired with less compute. `StepFill` rounds this to whole steps.

    With `unit_s` the scan follows the remaining work instead. The density of the pool is that of
    everything not computed yet, including running requests, and the ratio of compute to KV reads
    in every step is the ratio of the remaining compute to the remaining reads.
    """

    paced = True

    def __init__(
        self,
        blended: BlendedOrder,
        kv_capacity_tokens: int,
        fill: StepFill,
        planner: BlendPlanner,
        unit_s: UnitSeconds | None = None,
        *,
        pairs: bool = True,
    ) -> None:
        """``planner``: makes a new order when it has learned something. ``pairs``: whether the
        engine overlaps compute and memory. If it does not, a scan of the remaining work limits no
        step: nothing overlaps with the reads, so a pace would only add steps.

        Its sample is admitted before all others and counts on the right, because by the time it
        matters only its long requests still run.
        """
        self._planner = planner
        self._first: deque[int] = deque(planner.sample.tolist())
        self._capacity = kv_capacity_tokens
        self._fill = fill
        self._unit_s = unit_s
        self._free = unit_s is not None and not pairs
        self._work = RunningWork()
        self._prompt: list[int] = planner.prompt_tokens.tolist()
        self._side: dict[int, int] = {}
        # KV tokens of running requests, less the step: contexts grow by a token per step.
        self._offset: dict[int, int] = {}
        self._offsets = [0, 0]
        self._count = [0, 0]
        self._resume: tuple[list[int], list[int]] = ([], [])
        # Tokens that preempted requests had generated.
        self._generated: dict[int, int] = {}
        # Step -> left requests that are past their estimate if they still run then.
        self._due: dict[int, list[int]] = {}
        self._due_steps: list[int] = []
        self._closed = [False, False]
        self._right_is_full = False
        """Whether the right side was found to be full in this step."""
        self._offered = LEFT
        self._step = -1
        self._engine: EngineView | None = None
        self._horizon = KvHorizon()
        # Context tokens and steps left of preempted requests that were in the horizon.
        self._kept: dict[int, tuple[int, int]] = {}
        self._ahead = False
        """Whether the horizon has been used."""
        self._right_tokens = 0.0
        self._seats = 0.0
        self._pace_per_kv = 0.0
        """Left prompt tokens per step and KV token of the right side; in a scan of the remaining
        work, all tokens per step and KV token read."""
        self._draining = False
        """Whether no memory-intensive request is left to admit."""
        self._retry_at = 0
        self._refresh_at = 0
        self._scan(blended)

    def _scan(self, blended: BlendedOrder) -> None:
        """Put the cursors at the ends of an order of requests that were never admitted."""
        self._blended = blended
        self._order: list[int] = blended.order.tolist()
        self._ahead = self._ahead or blended.known_lengths
        self._left = 0
        self._right = len(blended.order)
        self._root = blended.density(0, self._right)
        self._draining = False
        self._admissions = REFRESH_ADMISSIONS
        self.num_waiting = len(self._first) + self._right + self._planner.unplanned
        self.num_waiting += len(self._resume[LEFT]) + len(self._resume[RIGHT])
        if self._unit_s is not None:
            self._work.restart(self._step, self._running_rows(), known=blended.known_lengths)

    def _running_rows(self) -> list[tuple[int, int, int, float]]:
        """Return context, generated tokens and estimated output of all running requests."""
        engine, mean = self._engine, self._planner.mean_output
        if engine is None:
            return []
        running = [(r, engine.generated_tokens(r)) for r in self._side]
        return [(r, self._prompt[r] + g, g, mean.item(r)) for r, g in running]

    @property
    def memory_split(self) -> tuple[float, float]:
        """KV tokens of the left and the right side after the last partition."""
        return self._capacity - self._right_tokens, self._right_tokens

    @property
    def wake_step(self) -> int:
        """See `AdmissionPolicy.wake_step`: the planner's next look after its sample is admitted."""
        return UNLIMITED if self._first else self._planner.wake_step

    # ---- a step ----

    def begin_step(self, engine: EngineView) -> None:
        """See `AdmissionPolicy.begin_step`."""
        self._engine = engine
        step = engine.step
        passed, self._step = step - self._step, step
        if not self._first and step >= self._planner.wake_step:
            self._ask_planner(engine)
        while self._due_steps and self._due_steps[0] <= step:
            self._outlived(self._due.pop(heapq.heappop(self._due_steps)))
        stale = self._unit_s is not None and step >= self._refresh_at
        if stale or self._admissions >= REFRESH_ADMISSIONS:
            self._part_memory()
        self._fill.begin_step(self._pace(engine), passed, engine.decodes)
        self._closed[LEFT] = self._closed[RIGHT] = self._right_is_full = False

    def _ask_planner(self, engine: EngineView) -> None:
        """Let the planner look at the admitted requests, and scan any new order it returns."""
        order = self._blended.order
        taken = np.concatenate([order[: self._left], order[self._right :]])
        made = self._planner.look(engine, taken, list(chain(self._side, *self._resume)))
        if made is not None:
            self._scan(made)

    def _part_memory(self) -> None:
        """Set the right side's seats and the left side's pace from the units at the cursors."""
        self._admissions = 0
        self._refresh_at = self._step + REFRESH_STEPS
        begin, end = self._left, self._right
        if self._unit_s is not None:
            compute, reads = self._work.at(self._step)
            compute += self._blended.compute_s(begin, end) / self._unit_s.compute_s
            reads += self._blended.reads(begin, end)
            self._pace_per_kv = compute / max(reads, 1.0)
            self._root = self._pace_per_kv * self._unit_s.compute_s / self._unit_s.memory_s
        if begin == end or self._draining:
            return
        left = self._blended.left_unit(begin, end)
        right = self._blended.right_unit(begin, end, self._root)
        if right is None:
            self._draining = True
            if self._unit_s is None and not self._pace_per_kv:  # there never was a right unit
                self._pace_per_kv = left.prefill_tokens / left.kv_token_steps
            return
        share = partition_memory(left.density, right.density, self._root)
        # A request holds p + d/2 KV tokens on average in the paper; with lengths that vary,
        # E[p d + d^2/2] / E[d].
        holds = right.kv_token_steps / right.output_tokens
        self._right_tokens = (1.0 - share) * self._capacity
        fill = self._right_tokens / holds
        # N seats hold N +- sqrt(N) times that (contexts of running requests vary like their mean)
        self._seats = (math.sqrt(fill + 0.25) - 0.5) ** 2
        if self._unit_s is None:
            most = share * self._capacity * left.prefill_tokens / left.kv_token_steps
            self._pace_per_kv = most / max(self._right_tokens, 1.0)

    def _pace(self, engine: EngineView) -> float:
        """Return the prompt tokens that the left side should compute in this step."""
        if self._first:
            return 0.0  # nothing is known yet
        if not self._count[RIGHT] and (self._draining or self._left == self._right):
            return float(UNLIMITED)  # no request to pair with
        if self._free:
            return float(UNLIMITED)
        if self._unit_s is not None:
            wanted = engine.decode_context_tokens * self._pace_per_kv
            return max(wanted - engine.decodes, 0.0)
        held = self._offsets[RIGHT] + self._count[RIGHT] * self._step
        return self._pace_per_kv * max(held, 0)

    def _outlived(self, requests: list[int]) -> None:
        """Move requests that run far past their estimates to the memory-intensive side."""
        side = self._side
        for r in requests:
            if side.get(r) == LEFT:
                side[r] = RIGHT
                self._count[LEFT] -= 1
                self._count[RIGHT] += 1
                self._offsets[LEFT] -= self._offset[r]
                self._offsets[RIGHT] += self._offset[r]

    # ---- the next request ----

    def peek(self) -> int:
        """See `AdmissionPolicy.peek`. The right side goes first: it takes longest to fill."""
        if self._first:
            self._offered = RIGHT
            return self._first[0]
        closed = self._closed
        if not closed[RIGHT] and not self._right_is_full:
            if self._right_is_open():
                r = self._candidate(RIGHT)
                if r >= 0:
                    return r
            else:
                self._right_is_full = True
        if not closed[LEFT] and self._fill.may_start:
            r = self._candidate(LEFT)
            if r >= 0:
                return r
        if not self._side:  # never leave an idle engine without work
            self._fill.allow_one()
            left_has_work = self._left < self._right or self._resume[LEFT]
            return self._candidate(LEFT if left_has_work else RIGHT)
        return -1

    def offer(self) -> tuple[Sequence[int], int]:
        """See `AdmissionPolicy.offer`."""
        request = self.peek()
        if request < 0:
            return (), 0
        side, left, right = self._offered, self._left, self._right
        limit = self._fill.left_tokens if side == LEFT else UNLIMITED
        if self._first:
            return tuple(islice(self._first, OFFERED)), limit
        if not self._side or self._resume[side]:
            return (request,), limit
        if side == LEFT:
            return self._order[left : min(left + OFFERED, right)], limit
        if self._blended.known_lengths:  # the room of the next one depends on this one
            return (request,), limit
        seats = math.ceil(self._seats - self._count[RIGHT])
        return self._order[max(left, right - min(seats, OFFERED)) : right][::-1], limit

    def _right_is_open(self) -> bool:
        """Whether the right side has a free seat, or (known lengths) lifelong room for its next."""
        if self._left == self._right:  # only preempted requests are left: nothing to blend with
            return True
        if self._draining:
            return bool(self._resume[RIGHT])
        if not self._blended.known_lengths:
            return self._count[RIGHT] < self._seats
        if self._step < self._retry_at:
            return False
        if not self._resume[RIGHT]:
            span = self._blended.span(self._right - 1)
            if self._count[RIGHT] and not self._horizon.fits(self._step, *span, self._right_tokens):
                self._retry_at = self._step + RETRY_STEPS
                return False
        return True

    def _candidate(self, side: int) -> int:
        if self._resume[side]:
            self._offered = side
            return self._resume[side][-1]
        if self._left == self._right:
            return -1
        self._offered = side
        return self._order[self._left if side == LEFT else self._right - 1]

    def token_limit(self, request: int) -> int:
        """See `AdmissionPolicy.token_limit`."""
        side = self._side.get(request, self._offered)
        return self._fill.left_tokens if side == LEFT else UNLIMITED

    def blocked(self, request: int) -> bool:
        """Close the side for this step. The other side may still have room."""
        self._closed[self._offered] = True
        return not self._first

    # ---- what happened ----

    def admitted(self, request: int, cached_tokens: int) -> None:
        """See `AdmissionPolicy.admitted`."""
        context = self._run((request,))
        if self._offered == LEFT:
            self._fill.started(request, context - cached_tokens)

    def all_admitted(
        self, requests: Sequence[int], cached_tokens: Sequence[int], tokens: Sequence[int]
    ) -> None:
        """See `AdmissionPolicy.all_admitted`."""
        context, left = self._run(requests), self._offered == LEFT
        self._fill.all_prefilled(tokens, left=left)
        if left:  # the prompts before the last one are complete
            self._fill.started(requests[-1], context - cached_tokens[-1] - tokens[-1])

    def _run(self, requests: Sequence[int]) -> int:
        """Move offered requests to the running ones; return the context of the last one."""
        side, step, unit = self._offered, self._step, self._unit_s
        self._dequeue(side, requests)
        sides, offsets, prompt, kept = self._side, self._offset, self._prompt, self._generated
        context = total = 0
        for r in requests:
            context = prompt[r]
            if r in kept:
                context += kept[r]
            sides[r] = side
            offset = offsets[r] = context - step
            total += offset
        if unit is not None:
            mean = self._planner.mean_output
            for r in requests:
                self._work.add(r, step, offsets[r] + step, kept.get(r, 0), mean.item(r))
        self._offsets[side] += total
        self._count[side] += len(requests)
        self._admissions += len(requests)
        self.num_waiting -= len(requests)
        return context

    def _dequeue(self, side: int, requests: Sequence[int]) -> None:
        """Take offered requests from where they waited."""
        if self._first:
            for _ in requests:
                self._first.popleft()
        elif self._resume[side]:
            (request,) = requests
            self._resume[side].pop()
            if request in self._kept:
                self._horizon.add(request, self._step, *self._kept.pop(request))
        elif side == LEFT:
            self._watch(requests, self._left)
            self._left += len(requests)
            if self._left == self._right:  # only preempted requests are left
                self._right_is_full = False
        else:
            self._right -= len(requests)
            if self._blended.known_lengths:
                (request,) = requests
                self._horizon.add(request, self._step, *self._blended.span(self._right))

    def _watch(self, requests: Sequence[int], at: int) -> None:
        """Schedule checks of left requests for when they are past their estimates.

        ``at``: the position of the first one in the order.
        """
        tokens = self._blended.output_tokens[at : at + len(requests)].tolist()
        last = -1.0  # neighbours often have the same estimate
        checked: list[int] = []
        for r, output in zip(requests, tokens, strict=True):
            if output != last:
                due, last = math.ceil(self._step + OUTLIVED * output), output
                if due not in self._due:
                    self._due[due] = []
                    heapq.heappush(self._due_steps, due)
                checked = self._due[due]
            checked.append(r)

    def prefilled(self, request: int, tokens: int) -> None:
        """See `AdmissionPolicy.prefilled`."""
        self._fill.prefilled(request, tokens, left=self._side[request] == LEFT)

    def _gone(self, requests: Sequence[int]) -> None:
        """Remove running requests."""
        sides, offsets, count, total = self._side, self._offset, self._count, self._offsets
        for r in requests:
            side = sides.pop(r)
            count[side] -= 1
            total[side] -= offsets.pop(r)
        if self._unit_s is not None:
            for r in requests:
                self._work.remove(r)

    def finished(self, request: int) -> None:
        """See `AdmissionPolicy.finished`."""
        self.all_finished((request,))

    def all_finished(self, requests: Sequence[int]) -> None:
        """See `AdmissionPolicy.all_finished`."""
        before = self._count[RIGHT]
        self._gone(requests)
        if self._count[RIGHT] < before:
            self._retry_at = 0
            if self._ahead:
                for r in requests:
                    self._horizon.remove(r, self._step)

    def preempted(self, request: int) -> None:
        """See `AdmissionPolicy.preempted`."""
        side = self._side[request]
        self._gone((request,))
        assert self._engine is not None
        self._generated[request] = self._engine.generated_tokens(request)
        self._fill.dropped(request)
        kept = self._horizon.remove(request, self._step)
        if kept is not None:
            self._kept[request] = kept
        self._resume[side].append(request)
        self.num_waiting += 1

    def notes(self) -> tuple[str, ...]:
        """See `AdmissionPolicy.notes`."""
        return (f"blendserve: {self._planner.note()}",)
