"""The remaining compute and KV reads of running requests, as sums with O(1) updates."""

from collections.abc import Iterable


class RunningWork:
    """Expected remaining decode tokens and KV reads of all running requests.

    With known lengths both are exact. Otherwise the remaining length of a request is assumed to be
    exponential with its estimated mean, regardless of the tokens so far: E[R] = E[d] and
    E[R^2] = 2 E[d]^2. All sums are polynomials in the step, so no loop over requests is needed.
    """

    def __init__(self) -> None:
        self._known = False
        # Per request: reads at step 0 and per step, tokens; and whether the length is known.
        self._terms: dict[int, tuple[float, float, float]] = {}
        self._sums = (0.0, 0.0, 0.0)

    def restart(
        self, step: int, rows: Iterable[tuple[int, int, int, float]], *, known: bool
    ) -> None:
        """Add all running requests again with new estimates; ``rows`` holds arguments of `add`."""
        self._known = known
        self._terms.clear()
        self._sums = (0.0, 0.0, 0.0)
        for request, context, generated, mean in rows:
            self.add(request, step, context, generated, mean)

    def add(self, request: int, step: int, context: int, generated: int, mean: float) -> None:
        """Add a request that holds `context` tokens at `step`; ``mean``: its estimated output."""
        offset = context - step
        if self._known:
            end = step + max(mean - generated, 1.0)
            # reads = c R + R^2 / 2 with c = offset + step and R = end - step
            terms = (offset * end + end * end / 2, -float(offset), end)
        else:
            terms = (offset * mean + mean * mean, mean, mean)
        self._terms[request] = terms
        a, b, c = self._sums
        self._sums = (a + terms[0], b + terms[1], c + terms[2])

    def remove(self, request: int) -> None:
        """Remove a request if it was added."""
        terms = self._terms.pop(request, None)
        if terms is not None:
            a, b, c = self._sums
            self._sums = (a - terms[0], b - terms[1], c - terms[2])

    def at(self, step: int) -> tuple[float, float]:
        """Return the remaining decode tokens and KV tokens to read at `step`."""
        constant, slope, tokens = self._sums
        reads = constant + slope * step
        if self._known:
            n = len(self._terms)
            reads -= n * step * step / 2
            tokens -= n * step
        return max(tokens, 0.0), max(reads, 0.0)
