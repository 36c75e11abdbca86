"""Efficiency curves and surfaces: the share of a peak that an operator reaches at its size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from bssim.cost_models.step_cost import FloatArray, Scalars
from bssim.errors import InputError


@dataclass(frozen=True, eq=False)
class EfficiencyCurve:
    """Share of a peak over one size, or over two, interpolated linearly in the logs of the sizes.

    Outside its points a curve is constant, so it never exceeds its largest point: what makes
    ``best`` safe for lower bounds.
    """

    x: FloatArray
    """Shape (nx,): increasing positive sizes."""
    y: FloatArray
    """Shape (ny,): increasing positive sizes of the second axis; one entry for a 1-D curve."""
    values: FloatArray
    """Shape (ny, nx): share of the peak at each point, in (0, 1.5]; slightly over 1 is possible
    where data is served from caches."""
    source: str
    """Provenance, printed with every number made from the curve."""

    @classmethod
    def build(
        cls,
        where: str,
        x: Sequence[float],
        values: Sequence[float] | Sequence[Sequence[float]],
        source: str,
        y: Sequence[float] = (1.0,),
    ) -> Self:
        """Return a checked curve; ``values`` is one row, or one row for each of ``y``.

        Raises InputError naming ``where`` for unordered sizes, wrong shapes or a share outside
        (0, 1.5].
        """
        xs = np.asarray(x, dtype=np.float64)
        ys = np.asarray(y, dtype=np.float64)
        table = np.atleast_2d(np.asarray(values, dtype=np.float64))
        for axis, sizes in (("x", xs), ("y", ys)):
            if sizes.ndim != 1 or not len(sizes) or sizes[0] <= 0 or np.any(np.diff(sizes) <= 0):
                raise InputError(
                    f"{where}.{axis}: found {sizes.tolist()}; expected increasing positive sizes"
                )
        if table.shape != (len(ys), len(xs)):
            raise InputError(
                f"{where}.values: found shape {table.shape}; expected {len(ys)} rows of {len(xs)}"
            )
        bad = table[~((table > 0) & (table <= 1.5))]
        if bad.size:
            raise InputError(f"{where}.values: found {bad[0]:g}; expected shares in (0, 1.5]")
        return cls(xs, ys, table, source)

    @property
    def best(self) -> float:
        """The largest share the curve can give."""
        return float(self.values.max())

    def at(self, x: Scalars, y: Scalars = 1.0) -> FloatArray:
        """Return the share at each size; sizes broadcast, and any below 1e-9 count as 1e-9."""
        if len(self.y) == 1:
            return np.asarray(np.interp(_log(x), np.log(self.x), self.values[0]))
        row, above = _locate(np.log(self.y), _log(y))
        column, right = _locate(np.log(self.x), _log(x))
        low, high = np.maximum(row - 1, 0), row
        left, column = np.maximum(column - 1, 0), column
        table = self.values
        lower = table[low, left] * (1 - right) + table[low, column] * right
        upper = table[high, left] * (1 - right) + table[high, column] * right
        mixed: FloatArray = lower * (1 - above) + upper * above
        return mixed

    def slice(self, y: float) -> Self:
        """Return the 1-D curve over ``x`` at one value of the second size."""
        if len(self.y) == 1:
            return self
        return type(self)(self.x, np.ones(1), self.at(self.x, y)[None, :], self.source)


def _log(sizes: Scalars) -> FloatArray:
    return np.asarray(np.log(np.maximum(sizes, 1e-9)))


def _locate(
    points: FloatArray, at: FloatArray
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.intp]], FloatArray]:
    """Return the point above each position and the weight of that point against the one below."""
    above = np.clip(np.searchsorted(points, at), 1, max(len(points) - 1, 1))
    if len(points) == 1:
        return np.zeros_like(above), np.zeros_like(at)
    low, high = points[above - 1], points[above]
    return above, np.clip((at - low) / (high - low), 0.0, 1.0)
