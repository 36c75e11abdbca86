"""The dual scan (BlendServe section 5.3): admit from both ends of a density order.

The left scanner takes compute-intensive requests, the right one memory-intensive requests. KV
memory M is parted so that the two run at the density of all that is left:

    ML + MR = M,   ML rho(L) + MR rho(R) = M rho(root)

and each side may hold as many requests as its part feeds in the steady state, and prefill per step
the tokens that keep it there.
"""

import heapq
import math
from collections import deque
from itertools import chain

import numpy as np

from bssim.sim.schedulers.blendserve.blended_order import BlendedOrder
from bssim.sim.schedulers.blendserve.kv_horizon import KvHorizon
from bssim.sim.schedulers.blendserve.planner import BlendPlanner
from bssim.sim.schedulers.interface import UNLIMITED, AdmissionPolicy, EngineView

LEFT, RIGHT = 0, 1
OUTLIVED = 8.0
"""A left request is past its estimate when it has run for this many times as many steps."""
ARREARS_STEPS = 4
"""Steps of unused left budget that are kept for the next ones."""
RETRY_STEPS = 64
"""Steps between two looks at a right side whose future is full."""
REFRESH_ADMISSIONS = 32
"""Admissions between two partitions of memory: an eighth of a unit."""


def partition_memory(left: float, right: float, root: float) -> float:
    """Return ML / M for the densities of the two units and of the pool (paper section 5.3).

    The paper leaves open what happens when the pool's density is not between the two (or they are
    equal): all memory then goes to the side nearer to it.
    """
    if left > root > right:
        return (root - right) / (left - right)
    return 1.0 if abs(left - root) <= abs(right - root) else 0.0


class DualScan(AdmissionPolicy):
    """The run-time half: two cursors, two budgets; an `AdmissionPolicy` over a `BlendedOrder`.

    The right side admits while it has a free seat. The left side is paced: it computes N p/d
    prompt tokens a step (what rides free under the weight load at least), and what a step could
    not use is made up for in the next few, or the side would fall behind for good.

    Choices the paper leaves open: the pool's density is that of the whole order; the right side's
    seats leave room for one standard deviation of its KV use, because when memory is full it is
    the left side that starves.
    """

    paced = True

    def __init__(
        self,
        blended: BlendedOrder,
        kv_capacity_tokens: int,
        free_tokens: float,
        planner: BlendPlanner | None = None,
    ) -> None:
        """``free_tokens``: tokens a step computes while it loads the weights anyway.

        ``planner``: makes a new order when it has learnt something; its sample is admitted before
        all others and counts on the right, because those that still run when it matters are the
        long ones. None: ``blended`` is final.
        """
        self.num_waiting = 0
        self._planner = planner
        self._first: deque[int] = deque(() if planner is None else planner.sample.tolist())
        self._capacity = kv_capacity_tokens
        self._free_tokens = free_tokens
        self._side: dict[int, int] = {}
        self._count = [0, 0]
        self._resume: tuple[list[int], list[int]] = ([], [])
        # Step -> left requests that are past their estimate if they still run then.
        self._due: dict[int, list[int]] = {}
        self._due_steps: list[int] = []
        self._seats = 0.0
        self._pace = 0.0
        self._budget = 0.0
        self._closed = [False, False]
        self._offered = LEFT
        self._step = -1
        self._horizon = KvHorizon()
        # Context tokens and steps left of preempted requests that were in the horizon.
        self._kept: dict[int, tuple[int, int]] = {}
        self._ahead = False
        """Has the horizon been in use?"""
        self._right_tokens = 0.0
        self._retry_at = 0
        self._scan(blended)

    def _scan(self, blended: BlendedOrder) -> None:
        """Put the cursors at the ends of an order of requests that were never admitted."""
        self._blended = blended
        self._ahead = self._ahead or blended.known_lengths
        self._left = 0
        self._right = len(blended.order)
        self._root = blended.density(0, self._right)
        self._admissions = REFRESH_ADMISSIONS
        self.num_waiting = len(self._first) + self._right
        self.num_waiting += 0 if self._planner is None else self._planner.unplanned
        self.num_waiting += len(self._resume[LEFT]) + len(self._resume[RIGHT])

    @property
    def memory_split(self) -> tuple[float, float]:
        """KV tokens given to the left and to the right side by the last partition."""
        return self._capacity - self._right_tokens, self._right_tokens

    @property
    def wake_step(self) -> int:
        """See `AdmissionPolicy.wake_step`: the planner's next look, once its sample is admitted."""
        return UNLIMITED if self._planner is None or self._first else self._planner.wake_step

    def begin_step(self, engine: EngineView) -> None:
        """See `AdmissionPolicy.begin_step`."""
        step = engine.step
        if step >= self.wake_step:
            self._ask_planner(engine)
        passed, self._step = step - self._step, step
        while self._due_steps and self._due_steps[0] <= step:
            self._outlived(self._due.pop(heapq.heappop(self._due_steps)))
        if self._admissions >= REFRESH_ADMISSIONS:
            self._part_memory()
        pace, budget = self._pace, self._budget
        arrears, free = ARREARS_STEPS * pace, self._free_tokens - engine.decodes
        for _ in range(passed):  # steps in which nothing could be admitted come as one
            before = budget
            budget = pace + (arrears if arrears < budget else budget)
            if budget < free:
                budget = free
            if budget == before:
                break
        self._budget = budget
        self._closed[LEFT] = self._closed[RIGHT] = False

    def _ask_planner(self, engine: EngineView) -> None:
        """Let the planner look at what was admitted; scan the order it returns, if any."""
        assert self._planner is not None
        order = self._blended.order
        taken = np.concatenate([order[: self._left], order[self._right :]])
        made = self._planner.look(engine, taken, set(chain(self._side, *self._resume)))
        if made is not None:
            self._scan(made)

    def _part_memory(self) -> None:
        """Set the right side's seats and the left side's pace from the units at the cursors."""
        self._admissions = 0
        begin, end = self._left, self._right
        if begin == end:
            return
        left, right = self._blended.left_unit(begin, end), self._blended.right_unit(begin, end)
        share = partition_memory(left.density, right.density, self._root)
        # A request holds p + d/2 KV tokens on average in the paper; with lengths that vary,
        # E[p d + d^2/2] / E[d].
        holds = right.kv_token_steps / right.output_tokens
        self._right_tokens = (1.0 - share) * self._capacity
        fill = self._right_tokens / holds
        # N seats hold N +- sqrt(N) times that (contexts of running requests vary like their mean)
        self._seats = (math.sqrt(fill + 0.25) - 0.5) ** 2
        used = self._seats / fill if fill > 0.0 and not self._blended.known_lengths else 1.0
        self._pace = used * share * self._capacity * left.prefill_tokens / left.kv_token_steps

    def _outlived(self, requests: list[int]) -> None:
        """Move those that run far past their estimates to the memory-intensive side."""
        side = self._side
        for r in requests:
            if side.get(r) == LEFT:
                side[r] = RIGHT
                self._count[LEFT] -= 1
                self._count[RIGHT] += 1

    def peek(self) -> int:
        """See `AdmissionPolicy.peek`; the right side, which takes longest to fill, goes first."""
        if self._first:
            self._offered = RIGHT
            return self._first[0]
        closed = self._closed
        if not closed[RIGHT] and self._right_is_open():
            r = self._candidate(RIGHT)
            if r >= 0:
                return r
        if self._budget >= 1.0 and not closed[LEFT]:
            r = self._candidate(LEFT)
            if r >= 0:
                return r
        if not self._side:  # never leave an idle engine without work
            self._budget = max(self._budget, 1.0)
            left_has_work = self._left < self._right or self._resume[LEFT]
            return self._candidate(LEFT if left_has_work else RIGHT)
        return -1

    def _right_is_open(self) -> bool:
        """Has the right side a free seat, or (lengths known) room for its next one's whole life?"""
        if self._left == self._right:  # only preempted requests are left: nothing to blend with
            return True
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
        return self._blended.order.item(self._left if side == LEFT else self._right - 1)

    def token_limit(self, request: int) -> int:
        """See `AdmissionPolicy.token_limit`."""
        side = self._side.get(request, self._offered)
        return int(self._budget) if side == LEFT else UNLIMITED

    def blocked(self, request: int) -> bool:
        """Close the side for this step; the other one may still find room."""
        self._closed[self._offered] = True
        return not self._first

    def admitted(self, request: int, cached_tokens: int) -> None:
        """See `AdmissionPolicy.admitted`."""
        side = self._offered
        if self._first:
            self._first.popleft()
        elif self._resume[side]:
            self._resume[side].pop()
            if request in self._kept:
                self._horizon.add(request, self._step, *self._kept.pop(request))
        elif side == LEFT:
            self._left += 1
            due = math.ceil(
                self._step + OUTLIVED * self._blended.output_tokens.item(self._left - 1)
            )
            if due in self._due:
                self._due[due].append(request)
            else:
                self._due[due] = [request]
                heapq.heappush(self._due_steps, due)
        else:
            self._right -= 1
            if self._blended.known_lengths:
                self._horizon.add(request, self._step, *self._blended.span(self._right))
        self._side[request] = side
        self._count[side] += 1
        self._admissions += 1
        self.num_waiting -= 1

    def prefilled(self, request: int, tokens: int) -> None:
        """See `AdmissionPolicy.prefilled`."""
        if self._side[request] == LEFT:
            self._budget -= tokens

    def finished(self, request: int) -> None:
        """See `AdmissionPolicy.finished`."""
        side = self._side.pop(request)
        self._count[side] -= 1
        if side == RIGHT:
            if self._ahead:
                self._horizon.remove(request, self._step)
            self._retry_at = 0

    def preempted(self, request: int) -> None:
        """See `AdmissionPolicy.preempted`."""
        side = self._side.pop(request)
        self._count[side] -= 1
        kept = self._horizon.remove(request, self._step)
        if kept is not None:
            self._kept[request] = kept
        self._resume[side].append(request)
        self.num_waiting += 1

    def notes(self) -> tuple[str, ...]:
        """See `AdmissionPolicy.notes`."""
        return () if self._planner is None else (f"blendserve: {self._planner.note()}",)
