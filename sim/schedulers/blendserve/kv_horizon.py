"""The most KV tokens that running requests of known length will hold at any later step."""

from bisect import bisect, insort
from itertools import chain


class KvHorizon:
    """Running requests by their last step. Contexts grow by one token per step until then."""

    def __init__(self) -> None:
        # (last step, context tokens less the step number, request)
        self._spans: list[tuple[int, int, int]] = []
        self._of: dict[int, tuple[int, int, int]] = {}
        self._finals = 0
        """Sum of the tokens that each of them holds at its end."""

    def add(self, request: int, step: int, context_tokens: int, steps_left: int) -> None:
        """Add a request that holds `context_tokens` at `step` and ends `steps_left` later."""
        span = (step + steps_left, context_tokens - step, request)
        self._of[request] = span
        self._finals += span[0] + span[1]
        insort(self._spans, span)

    def remove(self, request: int, step: int) -> tuple[int, int] | None:
        """Remove a request; return its context tokens and steps left, or None if unknown."""
        span = self._of.pop(request, None)
        if span is None:
            return None
        self._finals -= span[0] + span[1]
        self._spans.remove(span)
        return step + span[1], max(span[0] - step, 1)

    def fits(self, step: int, context_tokens: int, steps_left: int, limit: float) -> bool:
        """Return whether at most `limit` tokens are held at once if one more request starts now.

        KV use falls only when a request ends, so the peaks are at the ends. They are checked from
        the last one back. A request that ends earlier holds at most what it holds at its own end,
        so the many short requests need no check of their own.
        """
        new = (step + steps_left, context_tokens - step, -1)
        unseen = self._finals + new[0] + new[1]  # final tokens of all requests not checked yet
        if unseen <= limit:
            return True
        at = bisect(self._spans, new)
        alive = base = 0
        for end, offset, _ in chain(reversed(self._spans[at:]), (new,), reversed(self._spans[:at])):
            alive, base, unseen = alive + 1, base + offset, unseen - end - offset
            held = alive * end + base
            if held > limit:
                return False
            if held + unseen <= limit:
                return True
        return True
