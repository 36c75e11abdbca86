"""Overlap models: closed forms and the three properties that bounds stand on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from bssim.cost_models.hardware import CoRunPoints
from bssim.cost_models.overlap import PUBLISHED_CORUN, FrontierOverlap, parse_overlap
from bssim.cost_models.step_cost import StepCost
from bssim.errors import InputError

NAMES = ("sequential", "perfect", "frontier", "gamma:0.2", "pnorm:4")

seconds = st.floats(0, 1e3, allow_subnormal=False)


@st.composite
def costs(draw: st.DrawFn, least: float = 0.0) -> StepCost:
    compute, memory, network = draw(seconds) + least, draw(seconds), draw(seconds)
    share = draw(st.floats(0, 1))
    return StepCost(
        compute, memory, network, draw(seconds), share * (compute + memory), draw(seconds)
    )


def add(a: StepCost, b: StepCost, scale: float = 1.0) -> StepCost:
    return StepCost(
        *(
            getattr(a, f) + scale * getattr(b, f)
            for f in (
                "compute_s",
                "memory_s",
                "communication_s",
                "fixed_s",
                "bandwidth_s",
                "host_s",
            )
        )
    )


ZERO = StepCost(0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", NAMES)
@given(a=costs(), b=costs(), scale=st.floats(0.01, 100))
def test_convex_homogeneous_and_between_max_and_sum(
    name: str, a: StepCost, b: StepCost, scale: float
) -> None:
    f = parse_overlap(name).step_seconds
    total = f(a) + f(b)
    assert f(add(a, b)) <= total * (1 + 1e-9) + 1e-9
    assert f(add(ZERO, a, scale)) == pytest.approx(scale * f(a), rel=1e-9, abs=1e-9)
    assert f(a) <= f(add(a, b)) * (1 + 1e-9) + 1e-9  # never decreases
    longest = max(a.compute_s, a.memory_s, a.communication_s, a.bandwidth_s) + a.fixed_s
    assert longest * (1 - 1e-9) <= f(a) <= a.sequential_s * (1 + 1e-9) + 1e-9


@given(cost=costs())
def test_published_frontier_has_the_closed_form_without_network(cost: StepCost) -> None:
    alone = StepCost(cost.compute_s, cost.memory_s, 0.0, cost.fixed_s, cost.bandwidth_s)
    expected = cost.fixed_s + max(
        cost.compute_s + cost.memory_s / 2, cost.memory_s + cost.compute_s / 3, cost.bandwidth_s
    )
    assert parse_overlap("frontier").step_seconds(alone) == pytest.approx(expected)


def _mixing_seconds(points: CoRunPoints, compute: float, memory: float, network: float) -> float:
    """Return the least time that mixes co-run points, each holding one attention and one network
    operating point while GEMMs keep what both leave."""
    attention = [(1.0, 0.0), (0.0, 1.0), *points.attention]
    wires = [(1.0, 0.0), (0.0, 1.0), *points.network]
    modes = [(g + h - 1, a, n) for g, a in attention for h, n in wires if g + h - 1 >= -1e-12]
    rates = np.array(modes).T
    found = linprog(np.ones(len(modes)), A_ub=-rates, b_ub=-np.array([compute, memory, network]))
    return float(found.fun)


@given(compute=st.floats(0, 10), memory=st.floats(0, 10))
def test_frontier_is_the_linear_programme(compute: float, memory: float) -> None:
    model = FrontierOverlap()
    for cost in (
        StepCost(compute, memory, 0.0, 0.0, 0.0),
        StepCost(compute, 0.0, memory, 0.0, 0.0),
    ):
        expected = _mixing_seconds(
            PUBLISHED_CORUN, compute, float(cost.memory_s), float(cost.communication_s)
        )
        assert model.step_seconds(cost) == pytest.approx(expected, rel=1e-6, abs=1e-7)


@given(compute=st.floats(0, 10), memory=st.floats(0, 10), network=st.floats(0, 10))
def test_three_way_frontier_never_beats_the_linear_programme_by_mistake(
    compute: float, memory: float, network: float
) -> None:
    cost = StepCost(compute, memory, network, 0.0, 0.0)
    closed = float(FrontierOverlap().step_seconds(cost))
    mixed = _mixing_seconds(PUBLISHED_CORUN, compute, memory, network)
    assert closed <= mixed * (1 + 1e-6) + 1e-6
    pairs = [
        FrontierOverlap().step_seconds(StepCost(compute, memory, 0.0, 0.0, 0.0)),
        FrontierOverlap().step_seconds(StepCost(compute, 0.0, network, 0.0, 0.0)),
    ]
    assert closed >= max(pairs) - 1e-9


def test_own_points_replace_the_published_ones() -> None:
    perfect = CoRunPoints(attention=((1.0, 1.0),), network=((1.0, 1.0),), source="test")
    cost = StepCost(2.0, 2.0, 2.0, 0.5, 0.0)
    assert parse_overlap("frontier", perfect).step_seconds(cost) == pytest.approx(2.5)
    none = CoRunPoints(attention=(), network=(), source="test")
    assert parse_overlap("frontier", none).step_seconds(cost) == pytest.approx(6.5)
    with pytest.raises(InputError, match=r"corun.attention: found \[2, 0.5\]"):
        parse_overlap("frontier", CoRunPoints(((2.0, 0.5),), (), "test"))


def test_balance_point_and_communication_in_engines() -> None:
    balanced = StepCost(1.0, 1.0, 0.0, 0.0, 0.0)
    times = {name: float(parse_overlap(name).step_seconds(balanced)) for name in NAMES}
    assert times == pytest.approx(
        {
            "sequential": 2.0,
            "perfect": 1.0,
            "frontier": 1.5,
            "gamma:0.2": 1.2,
            "pnorm:4": 2 ** (1 / 4),
        }
    )
    networked = StepCost(1.0, 0.0, 0.5, 0.0, 0.0)
    assert parse_overlap("sequential").step_seconds(networked) == pytest.approx(1.5)
    assert parse_overlap("frontier").step_seconds(networked) == pytest.approx(1.25 / 1.05)


def test_arrays_price_like_scalars() -> None:
    rng = np.random.default_rng(0)
    columns = rng.random((5, 50))
    for name in NAMES:
        model = parse_overlap(name)
        assert model.name == name
        together = model.step_seconds(StepCost(*columns))
        alone = [float(model.step_seconds(StepCost(*column))) for column in columns.T]
        assert together == pytest.approx(alone)


@pytest.mark.parametrize("text", ["max", "gamma", "gamma:2", "pnorm:0.5", "pnorm:x", "frontier:1"])
def test_bad_names(text: str) -> None:
    with pytest.raises(InputError, match=f"found '{text}'"):
        parse_overlap(text)
