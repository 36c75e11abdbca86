"""How engines overlap operators: sequential, along a measured frontier, or perfect.

Every model is convex, homogeneous of degree one and non-decreasing in the seconds of a step, and
lies between their maximum and their sum. So the model applied to the seconds of a whole pool gives
a lower bound on every division of the pool into steps.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bssim.cost_models.hardware import CoRunPoints
from bssim.cost_models.step_cost import FloatArray, OverlapModel, Scalars, StepCost
from bssim.errors import InputError

PUBLISHED_CORUN = CoRunPoints(
    attention=((0.9, 0.2), (0.8, 0.3), (0.6, 0.8), (0.2, 0.85), (0.1, 0.95), (0.0, 1.0)),
    network=((0.9, 0.3), (0.8, 0.5), (0.2, 0.9), (0.1, 1.0)),
    source="NanoFlow (OSDI '25), Table 3 and section 4.1.4, A100",
)
"""Co-run points of an A100, measured with compute-bound GEMMs."""


@dataclass(frozen=True, slots=True)
class SequentialOverlap:
    """Operators run one after another (vLLM, SGLang)."""

    name: str = "sequential"

    def step_seconds(self, cost: StepCost) -> Scalars:
        """Return the sum of all seconds."""
        return cost.sequential_s


@dataclass(frozen=True, slots=True)
class PerfectOverlap:
    """Resources do not slow each other down (the paper's max), but share one HBM bandwidth."""

    name: str = "perfect"

    def step_seconds(self, cost: StepCost) -> Scalars:
        """Return the longest of compute, memory, communication and the bandwidth floor."""
        return _longest(cost) + cost.fixed_s


@dataclass(frozen=True, slots=True)
class GammaOverlap:
    """max + gamma (sum - max): 0 is perfect, 1 is sequential; for two resources max + gamma min."""

    gamma: float

    @property
    def name(self) -> str:
        """``gamma:G``."""
        return f"gamma:{self.gamma:g}"

    def step_seconds(self, cost: StepCost) -> Scalars:
        """Return the longest resource plus ``gamma`` of the rest, at least the bandwidth floor."""
        parts = (cost.compute_s, cost.memory_s, cost.communication_s)
        longest = np.maximum.reduce(np.broadcast_arrays(*parts))
        mixed = (1 - self.gamma) * longest + self.gamma * (parts[0] + parts[1] + parts[2])
        return np.asarray(np.maximum(mixed, _floor(cost)) + cost.fixed_s)


@dataclass(frozen=True, slots=True)
class PNormOverlap:
    """The p-norm of the seconds: 1 is sequential, infinity is perfect; smooth in between."""

    p: float

    @property
    def name(self) -> str:
        """``pnorm:P``."""
        return f"pnorm:{self.p:g}"

    def step_seconds(self, cost: StepCost) -> Scalars:
        """Return the p-norm of compute, memory and communication, at least the bandwidth floor."""
        parts = np.stack(
            np.broadcast_arrays(cost.compute_s, cost.memory_s, cost.communication_s)
        ).astype(np.float64)
        longest = parts.max(axis=0)
        scaled = parts / np.where(longest > 0, longest, 1.0)
        norm = longest * (scaled**self.p).sum(axis=0) ** (1 / self.p)
        return np.asarray(np.maximum(norm, _floor(cost)) + cost.fixed_s)


class FrontierOverlap:
    """The linear programme that mixes measured co-run points until all work is done.

    A point gives the rate that attention (or the network) reaches while GEMMs keep a given rate,
    both relative to running alone. The rate that GEMMs lose is the resource that the other operator
    holds; the resources of attention and network add up. The least resource h(y) that sustains a
    rate y is the lower convex hull of the points (rate, 1 - GEMM rate), that is, the maximum of its
    lines ``a y - b``. A step of T seconds must satisfy ``Tc/T + h(Tm/T) + h'(Tn/T) <= 1``, so

        T = max over lines of (Tc + a Tm + a' Tn) / (1 + b + b'),  and T >= Tm, Tn, bytes / BW.

    The bandwidth floor is needed because the points were measured with compute-bound GEMMs, and two
    memory-bound operators share one bandwidth. With the published points and no network this is
    ``max(Tc + Tm/2, Tm + Tc/3, bytes/BW)``.
    """

    name = "frontier"

    def __init__(self, points: CoRunPoints = PUBLISHED_CORUN) -> None:
        """Raise InputError for rates outside [0, 1]."""
        self.points = points
        lines = [
            (attention, network)
            for attention in _hull_lines("corun.attention", points.attention)
            for network in _hull_lines("corun.network", points.network)
        ]
        self._facets = tuple(
            (1 / (1 + b + d), a / (1 + b + d), c / (1 + b + d)) for (a, b), (c, d) in lines
        )

    def step_seconds(self, cost: StepCost) -> Scalars:
        """Return the seconds of each step."""
        seconds: Scalars = _longest(cost)
        for compute, memory, communication in self._facets:
            facet = (
                compute * cost.compute_s
                + memory * cost.memory_s
                + communication * cost.communication_s
            )
            seconds = np.maximum(seconds, facet)
        return seconds + cost.fixed_s


def _longest(cost: StepCost) -> FloatArray:
    """Return the longest of the three resources, the bandwidth floor and the host's seconds."""
    resources = np.maximum(cost.compute_s, np.maximum(cost.memory_s, cost.communication_s))
    return np.asarray(np.maximum(resources, _floor(cost)))


def _floor(cost: StepCost) -> FloatArray:
    """Return the seconds that a step takes at least, under any overlap."""
    return np.asarray(np.maximum(cost.bandwidth_s, cost.host_s))


def _hull_lines(where: str, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the lines ``(a, b)`` of ``h(y) = max(a y - b)``, the least resource for a rate y.

    ``h`` is the lower convex hull of (0, 0), (1, 1) and the points (rate, 1 - GEMM rate).
    """
    corners = {(0.0, 0.0), (1.0, 1.0)}
    for gemm, other in points:
        if not (0 <= gemm <= 1 and 0 <= other <= 1):
            raise InputError(
                where, f"[{gemm:g}, {other:g}]", "rates relative to running alone, in [0, 1]"
            )
        corners.add((other, 1 - gemm))
    hull: list[tuple[float, float]] = []
    for point in sorted(corners):
        if hull and point[0] == hull[-1][0]:
            continue  # the same rate for more of the GEMM's resource
        while len(hull) >= 2 and _slope(hull[-2], hull[-1]) > _slope(hull[-1], point) - 1e-9:
            hull.pop()  # above the hull, or on it
        hull.append(point)
    lines = []
    for left, right in itertools.pairwise(hull):
        slope = _slope(left, right)
        lines.append((slope, slope * left[0] - left[1]))
    return lines


def _slope(left: tuple[float, float], right: tuple[float, float]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])


def parse_overlap(text: str, corun: CoRunPoints | None = None) -> OverlapModel:
    """Return the overlap model of a command-line name.

    Names: ``sequential``, ``perfect``, ``frontier``, ``gamma:G`` with G in [0, 1], ``pnorm:P``
    with P at least 1. ``corun`` replaces the published points of ``frontier`` (see
    ``HardwareSpec.corun``). Raises InputError for anything else.
    """
    kind, _, argument = text.strip().partition(":")
    plain: dict[str, OverlapModel] = {
        "sequential": SequentialOverlap(),
        "perfect": PerfectOverlap(),
        "frontier": FrontierOverlap(corun or PUBLISHED_CORUN),
    }
    if kind in plain and not argument:
        return plain[kind]
    try:
        value = float(argument)
    except ValueError:
        value = float("nan")
    if kind == "gamma" and 0 <= value <= 1:
        return GammaOverlap(value)
    if kind == "pnorm" and 1 <= value < float("inf"):
        return PNormOverlap(value)
    raise InputError(
        "overlap",
        repr(text),
        "sequential, perfect, frontier, gamma:G with G in [0, 1], or pnorm:P with P >= 1",
    )
