"""The KV tokens that running requests will hold, at all times to come.

KV use peaks long after an admission: a request of 30,000 output tokens starts with its prompt. Both
classes answer one question, whether a request fits for its whole life beside those that run:
`KnownFuture` from lengths, `ExpectedFuture` from survival curves.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bssim.sim.survival import SurvivalCurves

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

HORIZONS: FloatArray = np.concatenate([[0.0], np.geomspace(32.0, 131072.0, 25)])
"""Steps from now at which expected KV use is looked at."""


class FutureKv(Protocol):
    """What the packed requests that run now will hold."""

    limit: float
    """KV tokens that packed requests may hold."""

    def add(self, request: int, step: int, context: int, generated: int) -> None:
        """Note a request that holds `context` tokens at `step`, `generated` of them its own."""

    def remove(self, request: int) -> None:
        """Forget a request that finished or was preempted."""

    def look(self, step: int) -> None:
        """Bring what `first_fit` and `profile` answer up to `step`."""

    def first_fit(self, requests: IntArray, context: IntArray, generated: IntArray) -> int:
        """Return the position of the first request that fits for its whole life, or -1."""

    def profile(self) -> tuple[FloatArray, FloatArray]:
        """Return the steps to come in phases, and KV tokens held in each, shape (phases,)."""

    def remaining_tokens(self) -> float:
        """Return the tokens still to generate, summed."""


class _Running:
    """The running requests as columns: contexts grow by a token a step."""

    def __init__(self, limit: float, whole_life: bool) -> None:
        self.limit = limit
        self._whole_life = whole_life
        self._of: dict[int, tuple[int, int, int]] = {}
        self._step = 0

    def add(self, request: int, step: int, context: int, generated: int) -> None:
        """See `FutureKv.add`."""
        self._of[request] = (request, context - step, generated - step)

    def remove(self, request: int) -> None:
        """See `FutureKv.remove`; a request that was never added does no harm."""
        self._of.pop(request, None)

    def __contains__(self, request: int) -> bool:
        return request in self._of

    def _fits_now(self, held: float, context: IntArray) -> int:
        """Answer `FutureKv.first_fit` for the present alone."""
        fits = held + context <= self.limit
        return int(np.argmax(fits)) if fits.any() else -1

    def _columns(self, among: Sequence[int] | None = None) -> tuple[IntArray, IntArray, IntArray]:
        """Return requests (default: all), context tokens and generated tokens now."""
        rows = self._of.values() if among is None else [self._of[r] for r in among]
        table = np.array(list(rows), dtype=np.int64).reshape(-1, 3)
        return table[:, 0], table[:, 1] + self._step, table[:, 2] + self._step


class KnownFuture(_Running):
    """Exact: every length is known, KV use only falls when somebody ends."""

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
        # A request past its supposed length may end any time.
        left = np.maximum(self._output[requests] - generated, 1.0)
        by = np.argsort(left)
        self._left, context = left[by], context[by].astype(np.float64)
        alive = np.arange(len(by), 0, -1)
        held = np.cumsum(context[::-1])[::-1]
        # Held just before the k-th of them ends, by all that are alive then.
        self._held = held + alive * self._left
        self._sum = np.append(held, 0.0)

    def first_fit(self, requests: IntArray, context: IntArray, generated: IntArray) -> int:
        """See `FutureKv.first_fit`."""
        if not self._whole_life:
            return self._fits_now(float(self._sum[0]), context)
        lasts = np.maximum(self._output[requests] - generated, 1.0)
        ahead = np.searchsorted(self._left, lasts, side="right")
        # Worst of the ends before its own, then its own.
        worst = np.maximum.accumulate(np.append(-np.inf, self._held + self._left))
        alive = len(self._left) - ahead
        own = self._sum[ahead] + alive * lasts + context + lasts
        fits = np.maximum(worst[ahead] + context, own) <= self.limit
        return int(np.argmax(fits)) if fits.any() else -1

    def profile(self) -> tuple[FloatArray, FloatArray]:
        """See `FutureKv.profile`."""
        before = np.append(0.0, self._left[:-1]) if len(self._left) else self._left
        alive = np.arange(len(self._left), 0, -1)
        return self._left - before, self._held - alive * (self._left - before) / 2

    def remaining_tokens(self) -> float:
        """See `FutureKv.remaining_tokens`."""
        return float(self._left.sum())


class ExpectedFuture(_Running):
    """Expectation and variance at `HORIZONS`, from the survival of everything that runs."""

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
        self._looked_with: SurvivalCurves | None = None
        self.look(0)

    def add(self, request: int, step: int, context: int, generated: int) -> None:
        """See `FutureKv.add`."""
        super().add(request, step, context, generated)
        self._added.append(request)

    def remove(self, request: int) -> None:
        """See `FutureKv.remove`."""
        super().remove(request)
        self._looked_with = None

    def look(self, step: int) -> None:
        """See `FutureKv.look`; where requests were only added since, only they are summed."""
        if step == self._step and self.curves is self._looked_with:
            columns = self._columns(self._added)
        else:
            self._step = step
            self._looked_with = self.curves
            columns = self._columns()
            self._group = np.zeros(0, np.int64)
            self._generated, self._context = np.zeros(0), np.zeros(0)
            self._mean, self._variance, self._log_nobody = np.zeros((3, len(HORIZONS)))
        self._added.clear()
        requests, generated = columns[0], columns[2].astype(np.float64)
        group = self.curves.group[requests].astype(np.int64)
        context = columns[1].astype(np.float64)
        alive = self.curves.still_running(group, generated, HORIZONS)
        later = context[:, None] + HORIZONS
        holds = alive * later
        self._mean += holds.sum(axis=0)
        self._variance += (holds * later * (1.0 - alive)).sum(axis=0)
        self._log_nobody += np.log1p(-np.minimum(alive, 1.0 - 1e-12)).sum(axis=0)
        self._group = np.append(self._group, group)
        self._generated = np.append(self._generated, generated)
        self._context = np.append(self._context, context)

    def first_fit(self, requests: IntArray, context: IntArray, generated: IntArray) -> int:
        """See `FutureKv.first_fit`."""
        if not self._whole_life:
            return self._fits_now(float(self._context.sum()), context)
        group = self.curves.group[requests].astype(np.int64)
        alive = self.curves.still_running(group, generated.astype(np.float64), HORIZONS)
        holds = context[:, None] + HORIZONS
        mean = self._mean + alive * holds
        variance = self._variance + alive * (1.0 - alive) * holds**2
        worst = (mean + self._margin * np.sqrt(variance)).max(axis=1)
        fits = worst <= self.limit
        return int(np.argmax(fits)) if fits.any() else -1

    def profile(self) -> tuple[FloatArray, FloatArray]:
        """See `FutureKv.profile`."""
        # A step is only taken if anyone is left to take it.
        chance = -np.expm1(self._log_nobody)
        anyone = (chance[1:] + chance[:-1]) / 2
        mean = (self._mean[1:] + self._mean[:-1]) / 2
        return np.diff(HORIZONS) * anyone, mean / np.maximum(anyone, 1e-300)

    def remaining_tokens(self) -> float:
        """See `FutureKv.remaining_tokens`."""
        return float(self.curves.residual(self._group, self._generated)[0].sum())
