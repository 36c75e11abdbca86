"""Lower bounds against the exact optimum of tiny pools and against every scheduler."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from bssim.cost_models.fitted import KNOTS, TERMS, FittedCostModel
from bssim.cost_models.hardware import EfficiencyCurve
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import CostModel, DecodeLimits, StepCost, StepWork
from bssim.cost_models.step_floors import StepFloors, StepLimits, dense_work
from bssim.sim.exact import TinyEngine, least_makespan
from bssim.sim.schedulers import scheduler_names
from bssim.sim.workload import make_workload
from tests.sim.harness import HARDWARE, LLM, run

OVERLAPS = st.sampled_from(["sequential", "frontier", "perfect", "gamma:0.2", "pnorm:4"])


class BumpyCost:
    """Seconds of rows that neither rise nor bend evenly, as measured tables have them."""

    name = "bumpy"

    def __init__(self, dense: list[float], head: list[float], read_s: float) -> None:
        self._dense, self._head, self._read_s = np.array(dense), np.array(head), read_s

    def step_cost(self, work: StepWork) -> StepCost:
        rows = np.asarray(work.gemm_tokens, dtype=np.float64)
        sampled = np.asarray(work.sampled_tokens, dtype=np.float64)
        counts = np.arange(1.0, len(self._dense) + 1)
        compute = np.where(rows > 0, np.interp(rows, counts, self._dense), 0.0)
        compute = compute + np.where(sampled > 0, np.interp(sampled, counts, self._head), 0.0)
        reads = self._read_s * np.asarray(work.decode_context_tokens)
        none = np.zeros_like(rows)
        return StepCost(compute, reads, none, 0.1 * (rows > 0), reads)

    def ideal_cost(self, work: StepWork) -> StepCost:
        counts = np.arange(1.0, len(self._dense) + 1)
        compute = np.asarray(work.tokens) * np.min(self._dense / counts)
        compute = compute + np.asarray(work.sampled_tokens) * np.min(self._head / counts)
        reads = self._read_s * np.asarray(work.decode_context_tokens)
        none = np.zeros_like(reads)
        return StepCost(compute, reads, none, none, reads)

    def operators(self, work: StepWork) -> list:
        return []


@st.composite
def cost_models(draw: st.DrawFn) -> CostModel:
    kind = draw(st.sampled_from(["bumpy", "fitted", "roofline", "silicon", "paper"]))
    event(kind)
    if kind == "bumpy":
        seconds = st.lists(st.floats(0.1, 5.0), min_size=8, max_size=8)
        return BumpyCost(draw(seconds), draw(seconds), draw(st.sampled_from([0.0, 0.1, 1.0])))
    if kind != "fitted":
        return make_cost_model(kind, LLM, HARDWARE)
    names = [*TERMS, *(f"tokens_over_{knot}" for knot in KNOTS)]
    terms = draw(st.dictionaries(st.sampled_from(names), st.floats(1e-3, 1.0)))
    return FittedCostModel(
        {"fixed": 0.01} | terms, "drawn", draw(st.sampled_from([1.0, 4.0, 64.0]))
    )


REQUESTS = st.tuples(st.integers(1, 3), st.integers(1, 5))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(REQUESTS, min_size=1, max_size=4),
    cost_models(),
    OVERLAPS,
    st.integers(0, 6),
    st.sampled_from([1, 1, 4]),
    st.sampled_from([2, 8]),
    st.sampled_from(scheduler_names()),
)
def test_no_bound_exceeds_the_exact_optimum(
    pool: list[tuple[int, int]],
    cost_model: CostModel,
    overlap: str,
    spare: int,
    multiple: int,
    slots: int,
    scheduler: str,
) -> None:
    prompts, outputs = zip(*pool, strict=True)
    limits: dict[str, Any] = {
        "max_num_batched_tokens": 8,
        "max_num_seqs": slots,
        "batch_multiple": multiple,
    }
    kv = max(p + d - 1 for p, d in pool) + spare
    tiny = TinyEngine(cost_model, parse_overlap(overlap), kv, **limits)
    exact = least_makespan(prompts, outputs, tiny).makespan_s
    result = run(
        make_workload("tiny", prompts, outputs),
        scheduler,
        kv=kv,
        cost_model=cost_model,
        overlap=overlap,
        **limits,
    )
    assert result.bounds.tightest_s <= exact * (1 + 1e-9)
    assert result.bounds.tightest_s <= result.makespan_s * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0.1, 5.0), min_size=8, max_size=8),
    st.lists(st.floats(0.1, 5.0), min_size=8, max_size=8),
    st.lists(st.integers(1, 8), min_size=1, max_size=30),
    st.data(),
)
def test_floors_hold_for_every_split_of_rows_into_steps(
    dense: list[float], head: list[float], rows: list[int], data: st.DataObject
) -> None:
    """The floor of the compute seconds, from fewer steps and rows than there are."""
    model = BumpyCost(dense, head, 0.0)
    sampled = [data.draw(st.integers(1, count)) for count in rows]
    cost = model.step_cost(dense_work(np.array(rows, float), np.array(sampled, float)))
    steps = data.draw(st.integers(0, len(rows)))
    floor = StepFloors(model, StepLimits(8, 8)).least_cost(
        dense_work(float(sum(rows)), float(sum(sampled))), steps
    )
    assert float(floor.compute_s) <= float(np.sum(cost.compute_s)) * (1 + 1e-9)
    assert float(floor.fixed_s) <= float(np.sum(cost.fixed_s)) * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0.01, 1.0), min_size=16, max_size=16),
    st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=12), min_size=1, max_size=8),
    st.integers(0, 60),
)
def test_decode_attention_takes_its_floor_in_any_batches(
    shares: list[float], steps: list[list[int]], shared: int
) -> None:
    """Whatever the curve is, for steps that are lists of contexts and fit the KV cache."""
    axes = {"kv_heads": [8.0, 16.0, 40.0, 64.0], "context": [2.0, 10.0, 50.0, 150.0]}
    curve = EfficiencyCurve.build("drawn", axes, np.reshape(shares, (4, 4)), "drawn")
    model = RooflineCostModel(LLM, replace(HARDWARE, decode_attention=curve))
    requests, reads = np.array([(len(step), sum(step)) for step in steps], float).T
    work = StepWork(decode_requests=requests, decode_context_tokens=reads)
    total = StepWork(decode_requests=requests.sum(), decode_context_tokens=reads.sum())
    limits = DecodeLimits(
        max_requests=max(len(step) for step in steps),
        kv_capacity_tokens=max(sum(max(c - shared, 0) for c in step) for step in steps) + 1,
        shared_tokens=shared,
        longest_context_tokens=max(max(step) for step in steps),
    )
    floor = model.least_decode_s(total, limits)
    assert 0 < floor <= float(np.sum(model.step_cost(work).memory_s)) * (1 + 1e-9)


def test_a_full_kv_cache_makes_decode_attention_slow() -> None:
    """Two requests fit at a time; the share of two at 100 tokens is a half, of four all."""
    axes = {"kv_heads": [16.0, 32.0], "context": [100.0]}
    curve = EfficiencyCurve.build("made", axes, np.array([[0.5], [1.0]]), "made")
    model = RooflineCostModel(LLM, replace(HARDWARE, decode_attention=curve))
    work = StepWork(decode_requests=10.0, decode_context_tokens=1000.0)
    best = float(model.ideal_cost(work).memory_s)
    enough, half = (
        model.least_decode_s(work, DecodeLimits(8, capacity, 0.0, 100.0)) for capacity in (400, 200)
    )
    assert enough == pytest.approx(best)
    assert 1.5 * best < half <= 2 * best


def test_a_floor_by_hand() -> None:
    """2 s up to 4 rows, then 4 s: 16 rows take 2 s per 4 rows, or 2 s for each of 10 steps."""
    model = BumpyCost([2.0] * 4 + [4.0] * 4, [1e-9] * 8, 0.0)
    floors = StepFloors(model, StepLimits(8, 8))
    for steps, seconds in ((1, 8.0), (4, 8.0), (10, 20.0)):
        assert floors.least_cost(dense_work(16.0, 1.0), steps).compute_s == pytest.approx(seconds)


def test_many_steps_of_few_rows_are_priced_as_such() -> None:
    """One long output: its steps have one row each, and the bound is nearly reached."""
    model = make_cost_model("roofline", LLM, HARDWARE)
    result = run(
        make_workload("pool", [8] * 40, [4] * 39 + [2000]),
        cost_model=model,
        kv=4000,
        max_num_seqs=40,
    )
    assert result.share_of_optimum < 0.05
    assert result.share_of_bound > 0.9


def test_fixed_seconds_of_a_fitted_model_count_once() -> None:
    """Every step of one row pays the fixed seconds and nothing else: the bound is the makespan."""
    model = FittedCostModel({"fixed": 0.5}, "made", 64.0)
    result = run(make_workload("pool", [1], [10]), cost_model=model)
    assert result.makespan_s == pytest.approx(5.0)
    assert result.bounds.tightest_s == pytest.approx(5.0)
