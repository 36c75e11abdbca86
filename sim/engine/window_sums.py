"""The context that layers with a window see in each step: sums over requests, kept as events.

A decoding request sees one more token in every step until its window is full (or its chunk ends).
The sum over requests is therefore piecewise linear, and only its bends are recorded: when a request
starts, when its window fills, and when it ends. The lines become arrays when steps are priced.
Models without windows have no object of this class.
"""

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from bssim.cost_models.llm import AttentionGroup
from bssim.sim.engine.decode_batch import DecodeBatch
from bssim.sim.engine.requests import RequestColumns

IntArray = npt.NDArray[np.int64]


class WindowSums:
    """The sums of one replica for the layers of ``group``, whose window is not 0."""

    def __init__(self, group: AttentionGroup) -> None:
        self._group = group
        self._jumps: defaultdict[int, int] = defaultdict(int)
        """Step -> what is added to the sum when the step begins."""
        self._slopes: defaultdict[int, int] = defaultdict(int)
        """Step -> change of what each step from this one on adds for the next."""
        self._next = 0
        """The sum in the first step that was not taken, its jumps left out."""
        self._slope = 0
        self._chunks: list[tuple[int, int, int]] = []

    def decodes(self, base: int, first: int, last: int, sign: int = 1) -> None:
        """Add a request that decodes in steps ``first`` .. ``last``, after ``base + step`` tokens.

        With ``sign`` -1, take those steps of a request away again.
        """
        if last < first:
            return
        window, jumps, slopes = self._group.window, self._jumps, self._slopes
        begin = base + first
        after = base + last + 1
        if self._group.kind == "chunked":
            jumps[first] += sign * (begin % window)
            slopes[first] += sign
            for edge in range((begin // window + 1) * window, after, window):
                jumps[edge - base] -= sign * window
            jumps[last + 1] -= sign * ((after - 1) % window + 1)
            slopes[last + 1] -= sign
            return
        most = window - 1
        jumps[first] += sign * min(begin, most)
        if begin < most:
            slopes[first] += sign
            slopes[min(most - base, last + 1)] -= sign
        jumps[last + 1] -= sign * min(after, most)

    def prefills(self, step: int, computed: int, tokens: int) -> None:
        """Add a chunk of ``tokens`` prompt tokens after ``computed`` ones."""
        self._chunks.append((step, computed, tokens))

    def take(self, first: int, end: int) -> tuple[IntArray, IntArray, IntArray]:
        """Return the sums of steps ``first`` .. ``end - 1``, which must follow those taken before.

        Context that decodes see, context that prefill chunks see, and (query, key) pairs of
        prefill chunks; each of shape (end - first,).
        """
        steps = end - first
        jumps = _drained(self._jumps, first, end)
        slopes = self._slope + np.cumsum(_drained(self._slopes, first, end))
        before = np.concatenate([np.zeros(min(steps, 1), np.int64), slopes[:-1]])
        decode = self._next + np.cumsum(jumps) + np.cumsum(before)
        if steps:
            self._slope = int(slopes[-1])
            self._next = int(decode[-1] + slopes[-1])
        context, pairs = np.zeros(steps, np.int64), np.zeros(steps, np.int64)
        if self._chunks:
            step, computed, tokens = np.array(self._chunks, dtype=np.int64).T
            np.add.at(context, step - first, self._group.visible_context(computed))
            seen = self._group.visible_pairs(tokens, computed)
            np.add.at(pairs, step - first, seen.astype(np.int64))
            self._chunks.clear()
        return decode, context, pairs


def _drained(events: dict[int, int], first: int, end: int) -> IntArray:
    """Return and remove the events of the steps ``first`` .. ``end - 1``."""
    found = np.zeros(end - first, np.int64)
    for step in [step for step in events if step < end]:
        found[step - first] = events.pop(step)
    return found


class WindowedDecodeBatch(DecodeBatch):
    """Decoding requests that also report their starts and ends to `WindowSums`."""

    def __init__(self, columns: RequestColumns, block_size: int, sums: WindowSums) -> None:
        super().__init__(columns, block_size)
        self._sums = sums

    def enter(self, requests: list[int], step: int) -> list[int]:
        """See `DecodeBatch.enter`."""
        done = super().enter(requests, step)
        for r in requests:
            if r not in done:
                self._sums.decodes(self._base[r], step, self._last(r))
        return done

    def drop(self, r: int, step: int) -> int:
        """See `DecodeBatch.drop`."""
        self._sums.decodes(self._base[r], step, self._last(r), -1)
        return super().drop(r, step)

    def stall(self, r: int, step: int) -> None:
        """See `DecodeBatch.stall`."""
        self._sums.decodes(self._base[r], step, self._last(r), -1)
        super().stall(r, step)
        self._sums.decodes(self._base[r], step + 1, self._last(r))

    def _last(self, r: int) -> int:
        """Return the step that computes a request's last token."""
        return self._need[r] - 1 - self._base[r]
