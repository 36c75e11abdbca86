"""The waiting requests of `ratio`, by why they wait; lists are taken from their ends."""

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

CANDIDATES = 64
"""Packed requests of known length that a look tries, spread over the waiting ones."""
HEADS = 4
"""The same where lengths are not known: the next ones in line."""


class Queues:
    """First the sample, then packed and paced requests as the plan in force has them."""

    def __init__(self, first: IntArray) -> None:
        """``first``: requests to admit before all others, in order."""
        self.first = deque(first.tolist())
        self.packed: list[int] = []
        self.paced: list[int] = []
        self.large: list[int] = []
        """Paced requests whose prompt had no room beside the packed ones."""
        self.resume: list[int] = []
        """Paced requests that were preempted."""
        self.taken: list[int] = []
        """Requests that left a plan since it was made."""
        self.kept: dict[int, int] = {}
        """Tokens that preempted requests had generated: what they hold when they come back."""

    def fill(self, packed: IntArray, paced: IntArray, unseen: npt.NDArray[np.bool_]) -> None:
        """Take over a plan; preempted packed requests, which are not ``unseen``, come first."""
        again = [r for r in self.packed if not unseen[r]]
        self.packed = packed.tolist() + again
        self.paced = paced.tolist()
        self.large.clear()

    @property
    def any_paced(self) -> bool:
        """Does any paced request wait that never ran?"""
        return bool(self.paced or self.large)

    def next_paced(self, packing: bool) -> int:
        """Return the paced request to offer, or -1.

        Large ones come back once nobody is ``packing``, or when no other paced request waits.
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
        """Let the paced request that was offered wait for more room."""
        self.large.append(self.paced.pop())

    def candidates(self, known: bool) -> "Candidates":
        """Return the packed requests to try next; ``known``: are their lengths?"""
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
    """Packed requests that may be admitted; arrays of one shape."""

    place: IntArray
    """Positions from the end of `Queues.packed`."""
    requests: IntArray
    generated: IntArray
    """Tokens that each has generated before, if it was preempted."""
