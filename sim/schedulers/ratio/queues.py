"""The waiting requests of `ratio`, by the reason why they wait. Lists are popped at the end."""

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

CANDIDATES = 64
"""Packed requests of known length that one look tries, spread over all that wait."""
HEADS = 4
"""Packed requests of unknown length that one look tries: the next ones in the queue."""


class Queues:
    """First the sample, then the packed and paced requests of the current plan."""

    def __init__(self, first: IntArray) -> None:
        """``first``: requests to admit before all others, in order."""
        self.first = deque(first.tolist())
        self.packed: list[int] = []
        self.paced: list[int] = []
        self.large: list[int] = []
        """Paced requests whose prompt did not fit next to the packed ones."""
        self.resume: list[int] = []
        """Paced requests that were preempted."""
        self.taken: list[int] = []
        """Requests admitted since the plan was made."""
        self.kept: dict[int, int] = {}
        """Tokens that preempted requests had generated, which they hold again when they resume."""

    def fill(self, packed: IntArray, paced: IntArray, unseen: npt.NDArray[np.bool_]) -> None:
        """Use a new plan. Preempted packed requests, which are not ``unseen``, come first."""
        again = [r for r in self.packed if not unseen[r]]
        self.packed = packed.tolist() + again
        self.paced = paced.tolist()
        self.large.clear()

    @property
    def any_paced(self) -> bool:
        """Whether any paced request that never ran is waiting."""
        return bool(self.paced or self.large)

    def next_paced(self, packing: bool) -> int:
        """Return the paced request to offer, or -1.

        Large ones return when no request is ``packing`` or no other paced request waits.
        """
        if self.resume:
            return self.resume[-1]
        if not packing:
            self.paced.extend(self.large)
            self.large.clear()
        elif not self.paced and self.large:
            self.paced.append(self.large.pop())
        return self.paced[-1] if self.paced else -1

    def set_aside(self) -> None:
        """Let the offered paced request wait for more room."""
        self.large.append(self.paced.pop())

    def candidates(self, known: bool) -> "Candidates":
        """Return the packed requests to try next; ``known``: whether lengths are known."""
        n = len(self.packed)
        if not known:
            at = np.arange(min(n, HEADS))
        elif n <= CANDIDATES:
            at = np.arange(n)
        else:
            at = np.unique(np.geomspace(1, n, CANDIDATES).astype(np.int64)) - 1
        requests = np.array([self.packed[-1 - k] for k in at.tolist()], dtype=np.int64)
        generated = np.array([self.kept.get(r, 0) for r in requests.tolist()], dtype=np.int64)
        return Candidates(at, requests, generated)


class Candidates(NamedTuple):
    """Packed requests that may be admitted; arrays of the same shape."""

    place: IntArray
    """Positions from the end of `Queues.packed`."""
    requests: IntArray
    generated: IntArray
    """Tokens that each one generated before it was preempted, or 0."""
