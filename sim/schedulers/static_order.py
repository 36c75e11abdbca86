"""Orders fixed before the run (fcfs, random and dfs), and the policy that serves them."""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from bssim.sim.engine import OFFERED, UNLIMITED, AdmissionPolicy
from bssim.sim.schedulers.blendserve import UnitSeconds, density_order, request_loads
from bssim.sim.schedulers.interface import Plan, PlanContext
from bssim.sim.schedulers.partition import contiguous, round_robin

IntArray = npt.NDArray[np.int64]


class StaticOrder(AdmissionPolicy):
    """Admits in a given order. Preempted requests come first, the most recent one before all."""

    waits_for_finish = True

    def __init__(self, order: IntArray) -> None:
        self._queue: list[int] = order[::-1].tolist()
        """The next request is the last."""
        self.num_waiting = len(self._queue)

    def peek(self) -> int:
        """See `AdmissionPolicy.peek`."""
        return self._queue[-1] if self._queue else -1

    def offer(self) -> tuple[Sequence[int], int]:
        """See `AdmissionPolicy.offer`."""
        return self._queue[: -OFFERED - 1 : -1], UNLIMITED

    def admitted(self, request: int, cached_tokens: int) -> None:
        """See `AdmissionPolicy.admitted`."""
        self._queue.pop()
        self.num_waiting -= 1

    def all_admitted(
        self, requests: Sequence[int], cached_tokens: Sequence[int], tokens: Sequence[int]
    ) -> None:
        """See `AdmissionPolicy.all_admitted`."""
        del self._queue[-len(requests) :]
        self.num_waiting -= len(requests)

    def all_finished(self, requests: Sequence[int]) -> None:
        """See `AdmissionPolicy.all_finished`."""

    def preempted(self, request: int) -> None:
        """See `AdmissionPolicy.preempted`."""
        self._queue.append(request)
        self.num_waiting += 1


class PriorityOrder(AdmissionPolicy):
    """vLLM's priority queue: lowest (priority, arrival) first, also for preempted requests."""

    waits_for_finish = True

    def __init__(self, order: IntArray, priority: IntArray | None) -> None:
        level = np.zeros(len(order), np.int64) if priority is None else priority[order]
        self._rank = {
            r: (int(p), at) for at, (r, p) in enumerate(zip(order.tolist(), level, strict=True))
        }
        self._heap = [(*rank, r) for r, rank in self._rank.items()]
        heapq.heapify(self._heap)
        self.num_waiting = len(order)

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
    parts: list[IntArray],
    estimated_output_tokens: npt.NDArray[np.float64] | None = None,
) -> Plan:
    """Return a plan that serves each replica's part in order; default estimates: the context's."""
    by_priority = context.engine.policy == "priority"
    priority = context.workload.priority
    policies: list[AdmissionPolicy] = [
        PriorityOrder(part, priority) if by_priority else StaticOrder(part) for part in parts
    ]
    if by_priority and priority is not None:
        parts = [part[np.argsort(priority[part], kind="stable")] for part in parts]
    if estimated_output_tokens is None:
        estimated_output_tokens = context.estimator.final().mean
    return Plan(tuple(policies), estimated_output_tokens, orders=tuple(parts))


class FixedOrder(ABC):
    """A scheduler that only chooses an order before the run. Subclasses define `parts`.

    It also works on disaggregated replicas, and its schedule can be run again unchanged.
    """

    @abstractmethod
    def parts(self, context: PlanContext) -> list[IntArray]:
        """Return the requests of every replica in admission order."""

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`."""
        return static_plan(context, self.parts(context))


@dataclass(frozen=True)
class Fcfs(FixedOrder):
    """First come, first served: the order of the pool, dealt to replicas in turn."""

    name: str = "fcfs"

    def parts(self, context: PlanContext) -> list[IntArray]:
        """See `FixedOrder.parts`."""
        return round_robin(np.arange(len(context.workload), dtype=np.int64), context.replicas)


@dataclass(frozen=True)
class Random(FixedOrder):
    """A uniformly random order (the paper's NanoFlow-Balance)."""

    name: str = "random"

    def parts(self, context: PlanContext) -> list[IntArray]:
        """See `FixedOrder.parts`."""
        order = context.rng.permutation(len(context.workload)).astype(np.int64)
        return round_robin(order, context.replicas)


@dataclass(frozen=True)
class Dfs(FixedOrder):
    """Depth-first over the prefix tree, which gives the most sharing that any order can have.

    The order of siblings does not change the sharing, but it affects throughput. ``first_seen``
    keeps the order of the pool, ``compute_first`` sorts by falling density and ``memory_first`` by
    rising density (of a subtree, as in paper section 4, with estimated lengths).
    """

    name: str = "dfs"
    children: Literal["first_seen", "compute_first", "memory_first"] = "first_seen"

    def parts(self, context: PlanContext) -> list[IntArray]:
        """See `FixedOrder.parts`."""
        workload = context.workload
        loads = request_loads(
            workload, context.estimator.final(), UnitSeconds.of(context.cost_model)
        )
        if self.children == "first_seen":
            order = workload.dfs_order
        else:
            order = density_order(workload, loads, ascending=self.children == "memory_first")
        return contiguous(order, context.replicas, loads.compute_s + loads.memory_s)
