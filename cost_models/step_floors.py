"""The least seconds of rows that at least N steps share, whatever the steps are.

A cost model prices the rows of a step (dense layers, all-reduces, host time) apart from its sampled
rows (LM head, sampling) and its attention. For each of the first two, the least seconds g(r) of a
step with r rows have a lower convex envelope e. By Jensen's inequality n steps that share R rows
take at least n e(R / n), and the least of that over n >= N is a lower bound on every schedule.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from bssim.cost_models.step_cost import (
    BoolArray,
    CostModel,
    DecodeLimits,
    FloatArray,
    PricesDecodeBatches,
    StepCost,
    StepWork,
)

RESOURCES = tuple(f.name for f in fields(StepCost))
_SWEEPS = 20


@dataclass(frozen=True, slots=True)
class StepLimits:
    """The limits of a step of one replica, in vLLM's terms."""

    max_num_batched_tokens: int
    max_num_seqs: int
    batch_multiple: int = 1
    micro_batches: int = 1
    """Equal parts, at most, into which a pipeline cuts a step."""

    @property
    def max_rows(self) -> int:
        """Rows of the largest step, with padding."""
        return -(-self.max_num_batched_tokens // self.batch_multiple) * self.batch_multiple

    def row_counts(self) -> FloatArray:
        """Return all row counts that a step can have, in increasing order."""
        return np.arange(self.batch_multiple, self.max_rows + 1.0, self.batch_multiple)

    def sampled_counts(self) -> FloatArray:
        """Return all counts of sampled tokens of a step that samples, in increasing order."""
        return np.arange(1.0, min(self.max_num_seqs, self.max_num_batched_tokens) + 1.0)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The largest convex, non-decreasing function below the least seconds of a step."""

    rows: FloatArray
    """Its corners, shape (corners,), in increasing order."""
    seconds: FloatArray

    @classmethod
    def below(cls, rows: FloatArray, seconds: FloatArray) -> "Envelope":
        """Return the envelope of points with increasing ``rows``."""
        # padding and recomputed tokens only add rows, so more rows must not be cheaper
        lowest = np.minimum.accumulate(seconds[::-1])[::-1]
        kept = np.arange(len(rows))
        for _ in range(_SWEEPS):  # most points are above the line between their neighbours
            inner = _above(rows, lowest, kept[:-2], kept[1:-1], kept[2:])
            if not inner.any():
                break
            kept = np.delete(kept, np.flatnonzero(inner) + 1)
        corners: list[int] = []
        for point in kept.tolist():
            while len(corners) > 1 and _above(rows, lowest, corners[-2], corners[-1], point):
                corners.pop()
            corners.append(point)
        return cls(rows[corners], lowest[corners])

    @property
    def first(self) -> float:
        """Least seconds of a step with rows."""
        return float(self.seconds[0])

    def least_s(self, rows: float, steps: float) -> float:
        """Return the least seconds of at least ``steps`` steps that share at least ``rows`` rows.

        In n steps they take ``n e(rows / n)``, which is convex in n and least where the seconds per
        row are.
        """
        best = self.rows[np.argmin(self.seconds / self.rows)]
        count = max(steps, rows / best)
        return float(count * np.interp(rows / count, self.rows, self.seconds)) if count else 0.0


def _above(x: FloatArray, y: FloatArray, left: Any, middle: Any, right: Any) -> BoolArray:
    """Return whether points are on or above the lines through their neighbours; by index."""
    over = (y[middle] - y[left]) * (x[right] - x[left])
    return np.asarray(over >= (y[right] - y[left]) * (x[middle] - x[left]))


class StepFloors:
    """The envelopes of a cost model's steps within the limits of an engine."""

    def __init__(self, cost_model: CostModel, limits: StepLimits) -> None:
        """Price every step size once."""
        self.limits = limits
        self._cost_model = cost_model

    @cached_property
    def _rows(self) -> dict[str, Envelope]:
        return self._envelopes(self.limits.row_counts(), lambda rows: dense_work(rows, 0.0))

    @cached_property
    def _sampled(self) -> dict[str, Envelope]:
        counts = self.limits.sampled_counts()
        return self._envelopes(counts, lambda rows: dense_work(1.0, rows), dense_work(1.0, 0.0))

    def _envelopes(
        self,
        counts: FloatArray,
        work: Callable[[FloatArray], StepWork],
        without: StepWork | None = None,
    ) -> dict[str, Envelope]:
        """Return one envelope per resource, of what ``work`` costs beyond ``without``."""
        parts = np.arange(1.0, self.limits.micro_batches + 1.0)[:, None]
        cost = self._cost_model.step_cost(work((counts / parts).ravel()))
        base = None if without is None else self._cost_model.step_cost(without)
        found = {}
        for name in RESOURCES:
            seconds = np.broadcast_to(getattr(cost, name), (parts.size * counts.size,))
            if base is not None:
                seconds = np.maximum(seconds - float(getattr(base, name)), 0.0)
            least = seconds.reshape(len(parts), len(counts)).min(axis=0)
            found[name] = Envelope.below(counts, least)
        return found

    @cached_property
    def step_cost(self) -> StepCost:
        """The least cost, per resource, of a step that samples a token."""
        return StepCost(**{n: self._rows[n].first + self._sampled[n].first for n in RESOURCES})

    def least_cost(
        self, work: StepWork, steps: float, decodes: DecodeLimits | None = None
    ) -> StepCost:
        """Return the least summed cost, per resource, of ``work`` in at least ``steps`` steps.

        ``work`` holds scalars, the least of any schedule. Each of ``steps`` steps samples a token.
        What is neither rows nor sampled rows costs its part of `CostModel.ideal_cost`, or what
        decode attention costs at least within the limits of ``decodes``.
        """
        tokens, sampled = float(work.tokens), float(work.sampled_tokens)
        whole = self._cost_model.ideal_cost(work)
        dense = self._cost_model.ideal_cost(dense_work(tokens, sampled))
        others = {
            name: max(float(getattr(whole, name)) - float(getattr(dense, name)), 0.0)
            for name in RESOURCES
        }
        if decodes is not None and isinstance(self._cost_model, PricesDecodeBatches):
            attention = self._cost_model.least_decode_s(work, decodes)
            others["memory_s"] = max(others["memory_s"], attention)
        least = {
            name: others[name]
            + self._rows[name].least_s(tokens, steps)
            + self._sampled[name].least_s(sampled, steps)
            for name in RESOURCES
        }
        return StepCost(**least)


def dense_work(rows: FloatArray | float, sampled: FloatArray | float) -> StepWork:
    """Return the work of rows without attention."""
    return StepWork(
        prefill_tokens=rows,
        sampled_tokens=sampled,
        window_decode_tokens=0.0,
        window_prefill_context_tokens=0.0,
        window_attention_pairs=0.0,
    )
