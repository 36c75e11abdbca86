"""Orders fixed before the run: fcfs, random and dfs, and the policy that serves any such order."""

import heapq
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bssim.sim.schedulers.blendserve.resource_tree import UnitSeconds, density_order, request_loads
from bssim.sim.schedulers.interface import (
    UNLIMITED,
    AdmissionPolicy,
    EngineView,
    Plan,
    PlanContext,
    Unpaced,
)
from bssim.sim.schedulers.partition import contiguous, round_robin


class StaticOrder(Unpaced):
    """Admits in a given order; preempted requests go first, the last one preempted before all."""

    waits_for_finish = True
    wake_step = UNLIMITED

    def __init__(self, order: npt.NDArray[np.int64]) -> None:
        self._queue = deque(order.tolist())
        self.num_waiting = len(self._queue)

    def remaining(self) -> npt.NDArray[np.int64]:
        """Return the waiting requests in the order in which they would be admitted."""
        return np.array(self._queue, dtype=np.int64)

    def begin_step(self, engine: EngineView) -> None:
        """Nothing changes with time."""

    def peek(self) -> int:
        """See `AdmissionPolicy.peek`."""
        return self._queue[0] if self._queue else -1

    def blocked(self, request: int) -> bool:
        """Hold: a head that does not fit stops admission."""
        return False

    def admitted(self, request: int, cached_tokens: int) -> None:
        """See `AdmissionPolicy.admitted`."""
        self._queue.popleft()
        self.num_waiting -= 1

    def finished(self, request: int) -> None:
        """Finished requests do not matter to a fixed order."""

    def preempted(self, request: int) -> None:
        """See `AdmissionPolicy.preempted`."""
        self._queue.appendleft(request)
        self.num_waiting += 1

    def notes(self) -> tuple[str, ...]:
        """Nothing to report."""
        return ()


class PriorityOrder(StaticOrder):
    """vLLM's priority queue: lowest (priority, arrival) first, preempted requests no exception."""

    def __init__(
        self, order: npt.NDArray[np.int64], priority: npt.NDArray[np.int64] | None
    ) -> None:
        super().__init__(order)
        level = np.zeros(len(order), np.int64) if priority is None else priority[order]
        self._rank = {
            r: (int(p), at) for at, (r, p) in enumerate(zip(self._queue, level, strict=True))
        }
        self._heap = [(*self._rank[r], r) for r in self._queue]
        heapq.heapify(self._heap)

    def remaining(self) -> npt.NDArray[np.int64]:
        """See `StaticOrder.remaining`."""
        return np.array([r for *_, r in sorted(self._heap)], dtype=np.int64)

    def peek(self) -> int:
        """See `AdmissionPolicy.peek`."""
        return self._heap[0][2] if self._heap else -1

    def admitted(self, request: int, cached_tokens: int) -> None:
        """See `AdmissionPolicy.admitted`."""
        heapq.heappop(self._heap)
        self.num_waiting -= 1

    def preempted(self, request: int) -> None:
        """See `AdmissionPolicy.preempted`."""
        heapq.heappush(self._heap, (*self._rank[request], request))
        self.num_waiting += 1


def static_plan(
    context: PlanContext,
    parts: list[npt.NDArray[np.int64]],
    estimated_output_tokens: npt.NDArray[np.float64] | None = None,
) -> Plan:
    """Return the plan that serves each replica its part in order; estimates: the estimator's."""
    priority = context.workload.priority
    policies: list[AdmissionPolicy] = [
        PriorityOrder(part, priority) if context.engine.policy == "priority" else StaticOrder(part)
        for part in parts
    ]
    if estimated_output_tokens is None:
        estimated_output_tokens = context.estimator.final().mean
    return Plan(tuple(policies), estimated_output_tokens)


@dataclass(frozen=True)
class Fcfs:
    """First come, first served: the order of the pool; replicas take turns."""

    name: str = "fcfs"

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`."""
        order = np.arange(len(context.workload), dtype=np.int64)
        return static_plan(context, round_robin(order, context.replicas))


@dataclass(frozen=True)
class Random:
    """A uniformly random order (the paper's NanoFlow-Balance)."""

    name: str = "random"

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`."""
        order = context.rng.permutation(len(context.workload)).astype(np.int64)
        return static_plan(context, round_robin(order, context.replicas))


@dataclass(frozen=True)
class Dfs:
    """Depth-first over the prefix tree: the most sharing any order can have, nothing else.

    The order among siblings is arbitrary for sharing and worth some throughput: ``first_seen``
    takes children as the pool has them, ``compute_first`` by falling density, ``memory_first``
    by rising density (density of a subtree: paper section 4, with the estimated lengths).
    """

    name: str = "dfs"
    children: Literal["first_seen", "compute_first", "memory_first"] = "first_seen"

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`."""
        workload = context.workload
        loads = request_loads(
            workload, context.estimator.final(), UnitSeconds.of(context.cost_model)
        )
        if self.children == "first_seen":
            order = workload.dfs_order
        else:
            order = density_order(workload, loads, ascending=self.children == "memory_first")
        load = loads.compute_s + loads.memory_s
        return static_plan(context, contiguous(order, context.replicas, load))
