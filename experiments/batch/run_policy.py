"""Admission at run time with plans that change: first a sample, then the current plan."""

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bssim.sim.engine import UNLIMITED, AdmissionPolicy, EngineView

IntArray = npt.NDArray[np.int64]


class ChangingPlan(AdmissionPolicy):
    """Serves the rows of a pool that it is given with `take`.

    `adopt` hands all requests that were never admitted to a new policy.

    A preempted request goes back to the policy that admitted it. If that policy has been replaced,
    the request is admitted before all others, most recently preempted first.
    """

    paced = True

    def __init__(self, size: int) -> None:
        """``size``: number of requests in the pool."""
        self._first = deque[int]()
        self._returned: list[int] = []
        self._again: dict[int, None] = {}
        """Preempted requests of all plans that wait again, in order of preemption."""
        self._policy: AdmissionPolicy | None = None
        self._rows: list[int] = []
        self._local: dict[int, int] = {}
        self._fresh = np.zeros(size, np.bool_)
        self._count()

    def never_admitted(self) -> IntArray:
        """Return the rows that the next plan covers, in pool order."""
        return np.flatnonzero(self._fresh)

    def take(self, rows: Sequence[int], first: Sequence[int] = ()) -> None:
        """Serve more rows. ``first``: those to admit before any plan; `adopt` is for the others."""
        self._fresh[list(rows)] = True
        self._fresh[list(first)] = False
        self._first.extend(first)
        self._count()

    def give_back(self, rows: Sequence[int]) -> None:
        """Serve rows that are `never_admitted` no longer. `adopt` must follow."""
        self._fresh[list(rows)] = False

    def adopt(self, policy: AdmissionPolicy, rows: IntArray) -> None:
        """Serve ``policy``, made for the pool's ``rows``, which must be `never_admitted`."""
        self._returned += [r for r in self._again if r not in self._returned]
        self._policy = policy
        self._rows = rows.tolist()
        self._local = {row: k for k, row in enumerate(self._rows)}
        self._count()

    def _count(self) -> None:
        planned = 0 if self._policy is None else self._policy.num_waiting
        self.num_waiting = len(self._returned) + len(self._first) + planned

    def begin_step(self, engine: EngineView) -> None:
        """See `AdmissionPolicy.begin_step`."""
        if self._policy is not None:
            self._policy.begin_step(_PlanView(engine, self._rows))

    def peek(self) -> int:
        """See `AdmissionPolicy.peek`."""
        if self._returned:
            return self._returned[-1]
        if self._first:
            return self._first[0]
        local = -1 if self._policy is None else self._policy.peek()
        return -1 if local < 0 else self._rows[local]

    def token_limit(self, request: int) -> int:
        """See `AdmissionPolicy.token_limit`."""
        planned = self._planned(request)
        return UNLIMITED if planned is None else planned[0].token_limit(planned[1])

    def blocked(self, request: int) -> bool:
        """See `AdmissionPolicy.blocked`."""
        planned = self._planned(request)
        return planned is not None and planned[0].blocked(planned[1])

    def admitted(self, request: int, cached_tokens: int) -> None:
        """See `AdmissionPolicy.admitted`."""
        self._again.pop(request, None)
        self._fresh[request] = False
        planned = self._planned(request)
        if planned is not None:
            planned[0].admitted(planned[1], cached_tokens)
        elif self._returned and self._returned[-1] == request:
            self._returned.pop()
        else:
            self._first.popleft()
        self._count()

    def prefilled(self, request: int, tokens: int) -> None:
        """See `AdmissionPolicy.prefilled`."""
        planned = self._planned(request)
        if planned is not None:
            planned[0].prefilled(planned[1], tokens)

    def finished(self, request: int) -> None:
        """See `AdmissionPolicy.finished`."""
        planned = self._planned(request)
        if planned is not None:
            planned[0].finished(planned[1])

    def preempted(self, request: int) -> None:
        """See `AdmissionPolicy.preempted`."""
        self._again[request] = None
        planned = self._planned(request)
        if planned is not None:
            planned[0].preempted(planned[1])
        else:
            self._returned.append(request)
        self._count()

    def notes(self) -> tuple[str, ...]:
        """See `AdmissionPolicy.notes`."""
        return () if self._policy is None else self._policy.notes()

    def _planned(self, request: int) -> tuple[AdmissionPolicy, int] | None:
        """Return the current policy and its index for the request, or None if it has none."""
        local = self._local.get(request)
        if local is None or self._policy is None:
            return None
        return self._policy, local


class _PlanView:
    """An EngineView with the row numbers of one plan."""

    def __init__(self, engine: EngineView, rows: list[int]) -> None:
        self._engine, self._rows = engine, rows
        self.step = engine.step

    @property
    def decodes(self) -> int:
        """See `EngineView.decodes`."""
        return self._engine.decodes

    @property
    def decode_context_tokens(self) -> int:
        """See `EngineView.decode_context_tokens`."""
        return self._engine.decode_context_tokens

    def cached_prefix_tokens(self, request: int) -> int:
        """See `EngineView.cached_prefix_tokens`."""
        return self._engine.cached_prefix_tokens(self._rows[request])

    def generated_tokens(self, request: int) -> int:
        """See `EngineView.generated_tokens`."""
        return self._engine.generated_tokens(self._rows[request])
