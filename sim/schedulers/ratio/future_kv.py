"""The KV tokens that running requests will hold at all later steps.

KV use peaks long after an admission: a request with 30,000 output tokens starts with only its
prompt. Both classes tell whether a request fits next to the running ones for its whole life:
`KnownFuture` from known lengths, `ExpectedFuture` from survival curves.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bssim.sim.lengths import SurvivalCurves

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HORIZONS: FloatArray = np.concatenate([[0.0], np.geomspace(32.0, 131072.0, 25)])
"""Steps from now for which the expected KV use is computed."""
REFRESH_STEPS = 16
"""Steps between full recomputations of the expected KV use: half the first horizon."""


class FutureKv(Protocol):
    """The future KV use of the packed requests that run now."""

    limit: float
    """KV tokens that packed requests may hold."""

    def add(self, request: int, step: int, context: int, generated: int) -> None:
        """Add a request that holds `context` tokens at `step`, `generated` of them outputs."""

    def remove(self, request: int) -> None:
        """Remove a request that finished or was preempted."""

    def look(self, step: int) -> None:
        """Update the answers of `first_fit` and `profile` to `step`."""

    def first_fit(self, requests: IntArray, context: IntArray, generated: IntArray) -> int:
        """Return the position of the first request that fits for its whole life, or -1."""

    def profile(self) -> tuple[FloatArray, FloatArray]:
        """Return the later steps in phases, and the KV tokens held in each, shape (phases,)."""

    def remaining_tokens(self) -> float:
        """Return the sum of the tokens still to generate."""


class _Running:
    """The running requests as columns. Contexts grow by one token per step."""

    def __init__(self, limit: float, whole_life: bool) -> None:
        self.limit = limit
        self._whole_life = whole_life
        self._of: dict[int, tuple[int, int, int]] = {}
        self._step = 0

    def add(self, request: int, step: int, context: int, generated: int) -> None:
        """See `FutureKv.add`."""
        self._of[request] = (request, context - step, generated - step)

    def remove(self, request: int) -> None:
        """See `FutureKv.remove`. Unknown requests are ignored."""
        self._of.pop(request, None)

    def __contains__(self, request: int) -> bool:
        return request in self._of

    def _fits_now(self, held: float, context: IntArray) -> int:
        """Answer `FutureKv.first_fit` for the current step only."""
        fits = held + context <= self.limit
        return int(np.argmax(fits)) if fits.any() else -1

    def _columns(self, among: Sequence[int] | None = None) -> tuple[IntArray, IntArray, IntArray]:
        """Return requests (default: all), and their current context and generated tokens."""
        rows = self._of.values() if among is None else [self._of[r] for r in among]
        table = np.array(list(rows), dtype=np.int64).reshape(-1, 3)
        return table[:, 0], table[:, 1] + self._step, table[:, 2] + self._step


class KnownFuture(_Running):
    """Exact, because every length is known. KV use falls only when a request ends."""

    def __init__(self, output_tokens: FloatArray, limit: float, whole_life: bool = True) -> None:
        """``output_tokens``: shape (n,); ``limit``: KV tokens that packed requests may hold.

        Without ``whole_life`` a request fits if it fits now.
        """
        super().__init__(limit, whole_life)
        self._output = output_tokens
        self.look(0)

    def look(self, step: int) -> None:
        """See `FutureKv.look`."""
        self._step = step
        requests, context, generated = self._columns()
        # A request past its expected length may end at any time.
        left = np.maximum(self._output[requests] - generated, 1.0)
        by = np.argsort(left)
        self._left, context = left[by], context[by].astype(np.float64)
        alive = np.arange(len(by), 0, -1)
        held = np.cumsum(context[::-1])[::-1]
        # Held by all live requests when the k-th ends. The last token is never stored.
        self._held = held + alive * (self._left - 1)
        self._sum = np.append(held, 0.0)

    def first_fit(self, requests: IntArray, context: IntArray, generated: IntArray) -> int:
        """See `FutureKv.first_fit`."""
        if not self._whole_life:
            return self._fits_now(float(self._sum[0]), context)
        lasts = np.maximum(self._output[requests] - generated, 1.0)
        ahead = np.searchsorted(self._left, lasts, side="right")
        # The largest use at an end before its own, then at its own.
        worst = np.maximum.accumulate(np.append(-np.inf, self._held + self._left - 1))
        alive = len(self._left) - ahead
        own = self._sum[ahead] + alive * (lasts - 1) + context + lasts - 1
        fits = np.maximum(worst[ahead] + context, own) <= self.limit
        return int(np.argmax(fits)) if fits.any() else -1

    def profile(self) -> tuple[FloatArray, FloatArray]:
        """See `FutureKv.profile`."""
        before = np.append(0.0, self._left[:-1]) if len(self._left) else self._left
        alive = np.arange(len(self._left), 0, -1)
        steps = self._left - before
        return steps, self._held - alive * (steps - 1) / 2

    def remaining_tokens(self) -> float:
        """See `FutureKv.remaining_tokens`."""
        return float(self._left.sum())


class ExpectedFuture(_Running):
    """Expectation and variance at `HORIZONS`, from the survival curves of all running requests.

    Both are sums over requests, so adding or removing one changes them by its own part. All parts
    are recomputed after `REFRESH_STEPS` and for new curves.
    """

    def __init__(
        self, curves: SurvivalCurves, limit: float, margin: float, whole_life: bool = True
    ) -> None:
        """``margin``: standard deviations of KV use kept free below ``limit``.

        Without ``whole_life`` a request fits if it fits now.
        """
        super().__init__(limit, whole_life)
        self.curves = curves
        self._margin = margin
        self._added: list[int] = []
        self._refresh(0)

    def add(self, request: int, step: int, context: int, generated: int) -> None:
        """See `FutureKv.add`."""
        super().add(request, step, context, generated)
        self._added.append(request)

    def remove(self, request: int) -> None:
        """See `FutureKv.remove`."""
        super().remove(request)
        part = self._parts.pop(request, None)
        if part is not None:
            self._sum -= part
        else:
            self._added = [r for r in self._added if r != request]

    def look(self, step: int) -> None:
        """See `FutureKv.look`."""
        if self.curves is not self._looked_with or step >= self._refreshed + REFRESH_STEPS:
            self._refresh(step)
        elif self._added:
            self._step = step
            self._take_in(self._added)
        self._added.clear()

    def _refresh(self, step: int) -> None:
        """Recompute the sums over all running requests."""
        self._step = self._refreshed = step
        self._looked_with = self.curves
        self._sum = np.zeros(3 * len(HORIZONS) + 1)
        self._parts: dict[int, FloatArray] = {}
        self._take_in(None)

    def _take_in(self, among: Sequence[int] | None) -> None:
        """Add the current parts of requests (None: all) to the sums."""
        requests, context, generated = self._columns(among)
        group = self.curves.group[requests].astype(np.int64)
        alive = self.curves.still_running(group, generated.astype(np.float64), HORIZONS)
        later = context[:, None] + HORIZONS
        holds = alive * later
        parts = np.concatenate(
            [
                holds,
                holds * later * (1.0 - alive),
                np.log1p(-np.minimum(alive, 1.0 - 1e-12)),
                self.curves.residual(group, generated.astype(np.float64))[0][:, None],
            ],
            axis=1,
        )
        self._sum += parts.sum(axis=0)
        self._parts.update(zip(requests.tolist(), parts, strict=True))

    @property
    def _moments(self) -> tuple[FloatArray, FloatArray]:
        """Expectation and variance of the tokens held at `HORIZONS`."""
        n = len(HORIZONS)
        return self._sum[:n], np.maximum(self._sum[n : 2 * n], 0.0)  # a difference may round below

    def first_fit(self, requests: IntArray, context: IntArray, generated: IntArray) -> int:
        """See `FutureKv.first_fit`."""
        mean, variance = self._moments
        if not self._whole_life:
            return self._fits_now(float(mean[0]), context)
        group = self.curves.group[requests].astype(np.int64)
        alive = self.curves.still_running(group, generated.astype(np.float64), HORIZONS)
        holds = context[:, None] + HORIZONS
        variance = variance + alive * (1.0 - alive) * holds**2
        worst = (mean + alive * holds + self._margin * np.sqrt(variance)).max(axis=1)
        fits = worst <= self.limit
        return int(np.argmax(fits)) if fits.any() else -1

    def profile(self) -> tuple[FloatArray, FloatArray]:
        """See `FutureKv.profile`."""
        mean, n = self._moments[0], len(HORIZONS)
        # A step happens only if a request is left.
        chance = -np.expm1(np.minimum(self._sum[2 * n : 3 * n], 0.0))
        anyone = (chance[1:] + chance[:-1]) / 2
        held = np.maximum(mean[1:] + mean[:-1], 0.0) / 2
        return np.diff(HORIZONS) * anyone, held / np.maximum(anyone, 1e-300)

    def remaining_tokens(self) -> float:
        """See `FutureKv.remaining_tokens`."""
        return max(float(self._sum[-1]), 0.0)
