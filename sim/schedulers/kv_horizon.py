"""The KV tokens that running requests of known length will hold, at their worst moment to come."""

from bisect import insort


class KvHorizon:
    """Running requests by their last step; contexts grow by a token a step until then."""

    def __init__(self) -> None:
        # (last step, context tokens less the step number, request)
        self._spans: list[tuple[int, int, int]] = []
        self._of: dict[int, tuple[int, int, int]] = {}

    def add(self, request: int, step: int, context_tokens: int, steps_left: int) -> None:
        """Note a request that holds `context_tokens` at `step` and ends `steps_left` later."""
        span = (step + steps_left, context_tokens - step, request)
        self._of[request] = span
        insort(self._spans, span)

    def remove(self, request: int) -> None:
        """Forget a request; one that was never added does no harm."""
        span = self._of.pop(request, None)
        if span is not None:
            self._spans.remove(span)

    def peak_with(self, step: int, context_tokens: int, steps_left: int) -> int:
        """Return the most tokens held at once from `step` on if one more request started now.

        KV use only falls when somebody ends, so the worst moments are the ends.
        """
        new = (step + steps_left, context_tokens - step, -1)
        alive = base = peak = 0
        placed = False
        for span in reversed(self._spans):
            if not placed and span[0] <= new[0]:
                alive, base, placed = alive + 1, base + new[1], True
                peak = max(peak, alive * new[0] + base)
            alive += 1
            base += span[1]
            peak = max(peak, alive * span[0] + base)
        if not placed:
            peak = max(peak, (alive + 1) * new[0] + base + new[1])
        return peak
