"""The KV tokens that running requests of known length will hold, at their worst moment to come."""

from bisect import bisect, insort
from itertools import chain


class KvHorizon:
    """Running requests by their last step; contexts grow by a token a step until then."""

    def __init__(self) -> None:
        # (last step, context tokens less the step number, request)
        self._spans: list[tuple[int, int, int]] = []
        self._of: dict[int, tuple[int, int, int]] = {}
        self._finals = 0
        """Tokens that each of them ends with, summed."""

    def add(self, request: int, step: int, context_tokens: int, steps_left: int) -> None:
        """Note a request that holds `context_tokens` at `step` and ends `steps_left` later."""
        span = (step + steps_left, context_tokens - step, request)
        self._of[request] = span
        self._finals += span[0] + span[1]
        insort(self._spans, span)

    def remove(self, request: int, step: int) -> tuple[int, int] | None:
        """Forget a request; return its context tokens and steps left, None if it was not added."""
        span = self._of.pop(request, None)
        if span is None:
            return None
        self._finals -= span[0] + span[1]
        self._spans.remove(span)
        return step + span[1], max(span[0] - step, 1)

    def fits(self, step: int, context_tokens: int, steps_left: int, limit: float) -> bool:
        """Say whether at most `limit` tokens are held at once if one more request starts now.

        KV use only falls when somebody ends, so the worst moments are the ends. They are looked at
        from the last one back: whoever ends earlier holds no more than at its own end, so that the
        many short requests are not looked at one by one.
        """
        new = (step + steps_left, context_tokens - step, -1)
        unseen = self._finals + new[0] + new[1]  # what all not looked at yet end with
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
