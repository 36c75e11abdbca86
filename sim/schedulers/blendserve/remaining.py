"""What running requests still have to compute and to read, as sums that cost O(1) per change."""

from collections.abc import Iterable


class RunningWork:
    """Expected decode tokens and KV reads to come of all that run.

    With known lengths both are exact. Otherwise a request's remaining length is taken as
    exponential with its estimated mean, whatever it has generated so far: E[R] = E[d] and
    E[R^2] = 2 E[d]^2. All sums are polynomials in the step, so nothing is walked.
    """

    def __init__(self) -> None:
        self._known = False
        # Per request: reads at step 0 and per step, tokens; and whether the length is known.
        self._terms: dict[int, tuple[float, float, float]] = {}
        self._sums = (0.0, 0.0, 0.0)

    def restart(
        self, step: int, rows: Iterable[tuple[int, int, int, float]], *, known: bool
    ) -> None:
        """Enter all that run under new estimates; ``rows``: the arguments of `add`."""
        self._known = known
        self._terms.clear()
        self._sums = (0.0, 0.0, 0.0)
        for request, context, generated, mean in rows:
            self.add(request, step, context, generated, mean)

    def add(self, request: int, step: int, context: int, generated: int, mean: float) -> None:
        """Enter a request that holds `context` tokens at `step`; ``mean``: of its whole output."""
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
        """Forget a request, if it was entered."""
        terms = self._terms.pop(request, None)
        if terms is not None:
            a, b, c = self._sums
            self._sums = (a - terms[0], b - terms[1], c - terms[2])

    def at(self, step: int) -> tuple[float, float]:
        """Return the decode tokens and the KV tokens to read that are left at `step`."""
        constant, slope, tokens = self._sums
        reads = constant + slope * step
        if self._known:
            n = len(self._terms)
            reads -= n * step * step / 2
            tokens -= n * step
        return max(tokens, 0.0), max(reads, 0.0)
