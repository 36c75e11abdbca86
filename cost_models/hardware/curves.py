"""Efficiency curves: the share of its roofline that an operator reaches, by its sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Self

import numpy as np
import numpy.typing as npt

from bssim.cost_models.step_cost import FloatArray, Scalars
from bssim.errors import InputError


@dataclass(frozen=True, eq=False)
class EfficiencyCurve:
    """A share in (0, 1] over one or more sizes; log-log linear between points, flat outside them.

    Log-log interpolation is exact for power laws. For example, the share of a kernel that consists
    of launch latency only is proportional to its size. No share exceeds the largest point, so
    ``best`` is safe for lower bounds.
    """

    axes: Mapping[str, FloatArray]
    """Name -> increasing positive sizes, in the order of the dimensions of ``values``."""
    values: FloatArray
    """The share at every grid point."""
    source: str
    """Provenance, printed with every number that comes from the curve."""

    @classmethod
    def build(
        cls,
        where: str,
        axes: Mapping[str, Sequence[float] | FloatArray],
        values: object,
        source: str,
    ) -> Self:
        """Return a checked curve.

        Raises InputError (at ``where``) for sizes that do not increase, a wrong number of values,
        or a share outside (0, 1].
        """
        sizes = {name: np.asarray(points, dtype=np.float64) for name, points in axes.items()}
        for name, points in sizes.items():
            if (
                points.ndim != 1
                or not len(points)
                or not points[0] > 0
                or not np.all(np.isfinite(points))
                or np.any(np.diff(points) <= 0)
            ):
                raise InputError(f"{where}.{name}", points.tolist(), "increasing positive sizes")
        table = np.asarray(values, dtype=np.float64)
        shape = tuple(len(points) for points in sizes.values())
        if table.shape != shape:
            raise InputError(
                f"{where}.values",
                f"shape {table.shape}",
                f"{shape} for the sizes of {', '.join(sizes)}",
            )
        bad = table[~((table > 0) & (table <= 1))]
        if bad.size:
            raise InputError(f"{where}.values", f"{bad[0]:g}", "shares in (0, 1]")
        return cls(sizes, table, source)

    @property
    def best(self) -> float:
        """The largest share of the curve."""
        return float(self.values.max())

    def at(self, **sizes: Scalars) -> FloatArray:
        """Return the share at ``sizes``, with one keyword per axis; arrays broadcast."""
        if len(self.axes) == 1:
            ((name, points),) = self.axes.items()
            logs = np.interp(_log(sizes[name]), np.log(points), np.log(self.values))
            return np.asarray(np.exp(logs))
        logs = np.log(self.values)
        shape = np.broadcast_shapes(*(np.shape(sizes[name]) for name in self.axes))
        found = np.zeros(shape)
        located = [_locate(np.log(points), _log(sizes[name])) for name, points in self.axes.items()]
        for corner in product((0, 1), repeat=len(located)):
            flat: npt.NDArray[np.intp] | int = 0
            weight: FloatArray | float = 1.0
            for upper, (below, right), length in zip(corner, located, logs.shape, strict=True):
                flat = flat * length + np.minimum(below + upper, length - 1)
                weight = weight * (right if upper else 1 - right)
            found += weight * logs.ravel()[flat]
        return np.asarray(np.exp(found))

    def slice(self, **sizes: float) -> Self:
        """Fix the named axes at one value each and return the curve over the others.

        Axes that the curve does not have are ignored.
        """
        kept = {name: points for name, points in self.axes.items() if name not in sizes}
        if len(kept) == len(self.axes):
            return self
        grid: dict[str, Scalars] = dict(
            zip(kept, np.meshgrid(*kept.values(), indexing="ij"), strict=True)
        )
        fixed = {name: sizes[name] for name in self.axes if name in sizes}
        return type(self)(kept, self.at(**grid, **fixed), self.source)


def general_elementwise(bandwidth: float) -> EfficiencyCurve:
    """Return the curve of a kernel with 3 us of latency and 0.8 of ``bandwidth``."""
    sizes = np.array([2.0**i for i in range(8, 36)])
    share = (sizes / bandwidth) / (3e-6 + sizes / (0.8 * bandwidth))
    return EfficiencyCurve.build(
        "elementwise",
        {"bytes": sizes},
        share,
        "assumed: 3 us and 0.8 of the bandwidth, aiconfigurator-core systems/*.yaml",
    )


def experts_as_gemms(gemm: EfficiencyCurve) -> EfficiencyCurve:
    """Return a curve over the rows of one expert, with the shares of large dense GEMMs."""
    rows = np.array([2.0**i for i in range(14)])
    sizes: dict[str, Scalars] = {"n": 16384.0, "k": 4096.0, "rows": rows}
    share = gemm.at(**{axis: sizes[axis] for axis in gemm.axes})
    source = f"assumed: the shares of gemm for the rows of one expert; {gemm.source}"
    return EfficiencyCurve.build(
        "experts", {"rows": rows}, np.broadcast_to(share, rows.shape), source
    )


def _log(sizes: Scalars) -> FloatArray:
    return np.asarray(np.log(np.maximum(sizes, 1e-9)))


def _locate(points: FloatArray, at: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Return the point below each position and the weight of the point above it."""
    if len(points) == 1:
        return np.zeros(at.shape, dtype=np.intp), np.zeros(at.shape)
    position = np.interp(at, points, np.arange(len(points), dtype=np.float64))
    below = np.minimum(position.astype(np.intp), len(points) - 2)
    return below, np.asarray(position - below)
