"""Longest prefix match: most cached prompt tokens first (SGLang's default)."""

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bssim.sim.engine import AdmissionPolicy, EngineView
from bssim.sim.schedulers.interface import Plan, PlanContext
from bssim.sim.schedulers.partition import round_robin
from bssim.sim.workload import Workload


class LongestPrefix(AdmissionPolicy):
    """Sorts the waiting requests in every step by the tokens that each would find in the cache.

    All requests of a tree node have the same hit, because their tails are private, so nodes are
    compared instead of requests. With more than `cutoff` waiting requests, the order is first come,
    first served, as in SGLang's `schedule_policy.py`, which avoids the cost of matching them all.
    """

    def __init__(self, workload: Workload, requests: npt.NDArray[np.int64], cutoff: int | None):
        self._node: list[int] = workload.node.tolist()
        self._cutoff = cutoff
        self._pool: deque[int] = deque(requests.tolist())
        self._taken = bytearray(len(workload))
        self._groups: dict[int, deque[int]] = {}
        for r in requests.tolist():
            self._groups.setdefault(self._node[r], deque()).append(r)
        self._preempted: list[int] = []
        self._ranked: list[int] | None = None
        self._engine: EngineView | None = None
        self.num_waiting = len(requests)

    def begin_step(self, engine: EngineView) -> None:
        """See `AdmissionPolicy.begin_step`."""
        self._engine = engine
        self._ranked = None

    def peek(self) -> int:
        """See `AdmissionPolicy.peek`."""
        if self._preempted:
            return self._preempted[-1]
        if not self.num_waiting:
            return -1
        if self._cutoff is not None and self.num_waiting > self._cutoff:
            while self._taken[self._pool[0]]:
                self._pool.popleft()
            return self._pool[0]
        if self._ranked is None:
            self._ranked = self._rank()
        while not self._groups.get(self._ranked[-1]):
            self._ranked.pop()
        return self._groups[self._ranked[-1]][0]

    def _rank(self) -> list[int]:
        """Nodes with waiting requests, best last. Of equal nodes, the earliest request wins."""
        engine = self._engine
        assert engine is not None
        heads = [(v, group[0]) for v, group in self._groups.items() if group]
        scored = [(engine.cached_prefix_tokens(r), -r, v) for v, r in heads]
        return [v for _, _, v in sorted(scored)]

    def admitted(self, request: int, cached_tokens: int) -> None:
        """See `AdmissionPolicy.admitted`."""
        self.num_waiting -= 1
        if self._preempted:
            self._preempted.pop()
            return
        self._taken[request] = True
        group = self._groups[self._node[request]]
        group.popleft()  # within a node, both orders are first come, first served
        if not group:
            del self._groups[self._node[request]]

    def preempted(self, request: int) -> None:
        """See `AdmissionPolicy.preempted`."""
        self._preempted.append(request)
        self.num_waiting += 1


@dataclass(frozen=True)
class Lpm:
    """See `LongestPrefix`. Requests are dealt to replicas in turn."""

    name: str = "lpm"
    cutoff: int | None = 128

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`."""
        order = np.arange(len(context.workload), dtype=np.int64)
        parts = round_robin(order, context.replicas)
        return Plan(
            tuple(LongestPrefix(context.workload, part, self.cutoff) for part in parts),
            context.estimator.final().mean,
        )
