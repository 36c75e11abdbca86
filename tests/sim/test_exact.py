"""The exact optimum: against plain enumeration, bounds and every scheduler."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.step_cost import StepCost, StepWork
from bssim.errors import InputError
from bssim.sim.exact import State, TinyEngine, least_makespan
from bssim.sim.schedulers import scheduler_names
from bssim.sim.workload import make_workload
from tests.sim.harness import run


class CoarseCost:
    """A token computes 1 s, a KV token is read in 0.25 s, the weights are loaded in 2 s."""

    name = "coarse"

    def step_cost(self, work: StepWork) -> StepCost:
        rows = np.asarray(work.gemm_tokens, dtype=np.float64)
        reads = 0.25 * np.asarray(work.decode_context_tokens)
        weights = np.where(rows > 0, 2.0, 0.0)
        none = np.zeros_like(rows)
        return StepCost(np.maximum(rows, weights), reads, none, none, weights + reads)

    def ideal_cost(self, work: StepWork) -> StepCost:
        tokens = np.asarray(work.tokens, dtype=np.float64)
        reads = 0.25 * np.asarray(work.decode_context_tokens)
        return StepCost(tokens, reads, np.zeros_like(tokens), np.zeros_like(tokens), reads)

    def operators(self, work: StepWork) -> list:
        return []


def engine(kv: int, budget: int = 8, overlap: str = "frontier", **knobs: int) -> TinyEngine:
    return TinyEngine(CoarseCost(), parse_overlap(overlap), kv, budget, **knobs)


def brute_force(tiny: TinyEngine, state: State) -> float:
    """Try every schedule to its end; nothing is remembered, nothing is bounded."""
    if not state:
        return 0.0
    best = float("inf")
    for after, work in tiny.steps(state):
        seconds = float(tiny.overlap.step_seconds(tiny.cost_model.step_cost(work)))
        best = min(best, seconds + brute_force(tiny, after))
    return best


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 2), st.integers(1, 3)), min_size=1, max_size=3),
    st.integers(0, 4),
    st.sampled_from([2, 3, 8]),
    st.sampled_from(["frontier", "sequential", "gamma:0.2"]),
)
def test_it_is_what_trying_everything_gives(
    pool: list[tuple[int, int]], spare: int, budget: int, overlap: str
) -> None:
    prompts, outputs = zip(*pool, strict=True)
    tiny = engine(max(p + d - 1 for p, d in pool) + spare, max(budget, len(pool)), overlap)
    start = tuple(sorted((p, p + d - 1, 0) for p, d in pool))
    exact = least_makespan(prompts, outputs, tiny)
    assert exact.makespan_s == pytest.approx(brute_force(tiny, start))
    assert sum(exact.steps) == sum(prompts)


def test_two_requests_by_hand() -> None:
    """Without overlap or KV limit, one step for both prompts and one for both second tokens."""
    exact = least_makespan([2, 2], [2, 2], engine(100, overlap="sequential"))
    assert exact.steps == (4, 0)
    assert exact.makespan_s == pytest.approx(4.0 + (2.0 + 0.25 * 4))


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=2, max_size=5),
    st.integers(0, 6),
    st.sampled_from(["frontier", "sequential"]),
)
def test_no_scheduler_beats_it_and_it_beats_no_bound(
    pool: list[tuple[int, int]], spare: int, overlap: str
) -> None:
    prompts, outputs = zip(*pool, strict=True)
    kv = max(p + d - 1 for p, d in pool) + spare
    exact = least_makespan(prompts, outputs, engine(kv, 8, overlap)).makespan_s
    for scheduler in scheduler_names():
        result = run(
            make_workload("tiny", prompts, outputs),
            scheduler,
            kv=kv,
            cost_model=CoarseCost(),
            max_num_batched_tokens=8,
            max_num_seqs=8,
            overlap=overlap,
        )
        assert result.bounds.tightest_s <= exact * (1 + 1e-9)
        if not result.preemptions:
            assert exact <= result.makespan_s * (1 + 1e-9), scheduler


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(InputError, match="10 tokens"):
        least_makespan([6], [5], engine(9))
    with pytest.raises(InputError, match="more than 5 states"):
        least_makespan([3] * 6, [4] * 6, engine(20), max_states=5)
