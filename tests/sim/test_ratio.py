"""`ratio`: its two parts in closed form, then whole runs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.cost_models.fitted import FittedCostModel
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import StepWork
from bssim.errors import InputError
from bssim.experiments.result_pages.reproduction.intercepted import Calls, InterceptedScheduler
from bssim.sim.engine import AdmissionPolicy, load_preset
from bssim.sim.lengths import NUM_BINS, SurvivalCurves, make_estimator
from bssim.sim.schedulers import make_scheduler, variant_names
from bssim.sim.schedulers.blendserve import UnitSeconds, request_loads
from bssim.sim.schedulers.ratio.future_kv import (
    HORIZONS,
    REFRESH_STEPS,
    ExpectedFuture,
    KnownFuture,
)
from bssim.sim.schedulers.ratio.options import margin
from bssim.sim.schedulers.ratio.order import is_packed, paced_order, random_order
from bssim.sim.schedulers.ratio.ratio import LOOK_STEPS
from bssim.sim.schedulers.ratio.step_tokens import StepTokens
from bssim.sim.simulate import simulate
from bssim.sim.workload import PrefixTree, Workload, from_groups, make_workload
from tests.sim.harness import COST, HARDWARE, LLM

CAPACITY = 467_000
NANOFLOW = load_preset("nanoflow")


def tokens(overlap: str) -> StepTokens:
    return StepTokens(COST, parse_overlap(overlap), NANOFLOW, CAPACITY)


def tokens_around(table: StepTokens, price: float, kv: float) -> tuple[float, float, float]:
    low, high, part = table.around(price)
    level = table.level(kv)
    return low[level], high[level], part


def mean_tokens(table: StepTokens, price: float, kv: float) -> float:
    low, high, part = tokens_around(table, price, kv)
    return low + part * (high - low)


@pytest.mark.parametrize("gpu", ["a100-80gb", "h100-sxm"])
def test_tokens_at_the_lowest_price_are_nearly_free_beside_kv_reads(gpu: str) -> None:
    """Also where a cost model prices KV reads by the requests that decode (roofline)."""
    cost_model = RooflineCostModel(LLM, load_hardware(gpu))
    frontier = parse_overlap("frontier")
    table = StepTokens(cost_model, frontier, NANOFLOW, CAPACITY)

    def seconds(n: float) -> float:
        work = StepWork(40.0, float(CAPACITY), 1.0, n - 40.0, 0.0, 0.0, 0.0)
        return float(frontier.step_seconds(cost_model.step_cost(work)))

    assert seconds(mean_tokens(table, 0.0, CAPACITY)) <= 1.1 * seconds(128.0)


def seconds(overlap: str, n: float, kv: float) -> float:
    work = StepWork(0.0, kv, 1.0, n, 0.0, 0.0, 0.0, -n % 128)
    return float(parse_overlap(overlap).step_seconds(COST.step_cost(work)))


def test_at_full_price_a_step_takes_the_fewest_tokens_that_lose_nothing() -> None:
    """On the frontier a step beyond the kink costs Tc + Tm/2: compute alone is no cheaper."""
    table = tokens("frontier")
    unit = UnitSeconds.of(COST)
    for kv in (0.0, CAPACITY / 2, CAPACITY):
        n = mean_tokens(table, table.full_price, kv)
        linear = n * unit.compute_s + kv * unit.memory_s / 2
        assert seconds("frontier", n, kv) == pytest.approx(linear, rel=0.01)
        less = n - 128
        if less:
            linear = less * unit.compute_s + kv * unit.memory_s / 2
            assert seconds("frontier", less, kv) > linear * 1.002


def test_steps_mix_two_token_counts_where_one_between_would_cost_more() -> None:
    """70B on eight GPUs: GEMMs and all-reduces of a few hundred tokens cost more than their share,
    so that 256 tokens in some steps and 2,048 in the others beat the same number in each.
    """
    hardware = load_hardware("a100-80gb")
    cost_model = make_cost_model("roofline", load_llm("llama-3-70b"), hardware, tp=8)
    frontier, capacity = parse_overlap("frontier"), 1_400_000
    table = StepTokens(cost_model, frontier, NANOFLOW, capacity)

    def seconds(n: float, kv: float) -> float:
        work = StepWork(32.0, kv, 1.0, n - 32.0, 0.0, 0.0, 0.0, -n % 128)
        return float(frontier.step_seconds(cost_model.step_cost(work)))

    saved = []
    for kv in np.linspace(0, capacity, 5):
        for price in np.linspace(0, table.full_price, 200):
            low, high, part = tokens_around(table, price, kv)
            mixed = (1 - part) * seconds(low, kv) + part * seconds(high, kv)
            saved.append(1 - mixed / seconds(low + part * (high - low), kv))
    assert min(saved) > -0.01
    assert max(saved) > 0.05


@pytest.mark.parametrize("overlap", ["frontier", "gamma:0.2", "pnorm:4", "sequential", "perfect"])
def test_tokens_grow_with_the_price(overlap: str) -> None:
    table = tokens(overlap)
    for kv in np.linspace(0, CAPACITY, 7):
        asked = [mean_tokens(table, price, kv) for price in np.linspace(0, table.full_price, 50)]
        assert asked == sorted(asked)
        assert asked[0] >= 128


def test_the_price_spends_the_supply() -> None:
    table = tokens("frontier")
    steps, kv = np.array([1000.0, 500.0]), np.array([0.9 * CAPACITY, 0.2 * CAPACITY])

    def demand(price: float) -> float:
        return float(sum(s * mean_tokens(table, price, k) for s, k in zip(steps, kv, strict=True)))

    for share in (0.3, 0.6, 0.9):
        low, high = demand(0.0), demand(table.full_price)
        supply = low + share * (high - low)
        assert demand(table.price_for(supply, steps, kv)) == pytest.approx(supply, rel=1e-6)
    assert table.price_for(1e12, steps, kv) == table.full_price
    assert table.price_for(0.0, steps, kv) == 0.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 400)), min_size=0, max_size=12),
    st.integers(1, 300),
    st.integers(1, 400),
)
def test_known_future_is_the_peak_of_a_life(
    spans: list[tuple[int, int]], context: int, steps_left: int
) -> None:
    output = np.array([s for _, s in spans] + [steps_left], dtype=np.float64)
    peak = max(
        context + t + sum(held + t for held, left in spans if left > t) for t in range(steps_left)
    )
    me = np.array([len(spans)])
    for limit, fits in ((peak, 0), (peak - 1, -1)):
        future = KnownFuture(output, limit)
        for r, (held, _) in enumerate(spans):
            future.add(r, 0, held, 0)
        future.look(0)
        assert future.first_fit(me, np.array([context]), np.array([0])) == fits


def test_known_future_adds_up_what_is_left() -> None:
    future = KnownFuture(np.array([10.0, 4.0]), 1000)
    future.add(0, 5, 100, 0)
    future.add(1, 5, 50, 0)
    future.look(5)
    steps, kv = future.profile()
    assert steps.sum() == 10
    assert (steps * kv).sum() == sum(range(100, 110)) + sum(range(50, 54))
    assert future.remaining_tokens() == 14
    future.remove(0)
    future.look(6)
    assert future.remaining_tokens() == 3


def test_expected_future_agrees_with_draws() -> None:
    n = 40
    curves = SurvivalCurves.lognormal(np.full(n + 1, 3000.0), np.full(n + 1, 2 * 3000.0**2))
    rng = np.random.default_rng(0)
    future = ExpectedFuture(curves, np.inf, 0.0)
    for r in range(n):
        future.add(r, 0, 100, 0)
    future.look(0)
    steps, kv = future.profile()
    sigma = np.sqrt(np.log(2.0))
    draws = rng.lognormal(np.log(3000.0) - sigma**2 / 2, sigma, (2000, n))
    assert (steps * kv).sum() == pytest.approx(
        (100 * draws + draws**2 / 2).sum(axis=1).mean(), rel=0.15
    )
    assert future.remaining_tokens() == pytest.approx(draws.sum(axis=1).mean(), rel=0.05)


def mixed(n: int = 3000, seed: int = 0) -> Workload:
    """A few long outputs among short ones, in two subtrees."""
    rng = np.random.default_rng(seed)
    long = rng.random(n) < 0.01
    output = np.where(long, rng.lognormal(8.0, 0.7, n), rng.lognormal(2.5, 0.7, n)).astype(int) + 1
    tree = PrefixTree(np.array([-1, 0, 0], np.int32), np.array([0, 60, 40]))
    return make_workload(
        "mixed",
        rng.integers(100, 500, n),
        output,
        tree=tree,
        node=np.where(long, 1, 2),
    )


def share(pool: Workload, scheduler: str, lengths: str = "oracle", **knobs: str | int) -> float:
    engine = NANOFLOW.with_settings({"num_gpu_blocks": 40_001, "batch_multiple": 1, **knobs})
    result = simulate(
        pool,
        scheduler=scheduler,
        llm=LLM,
        hardware=HARDWARE,
        engine=engine,
        cost_model=COST,
        output_lengths=lengths,
    )
    assert np.all(result.finish_s > 0)
    return result.share_of_optimum


def test_packed_requests_are_those_bound_by_memory() -> None:
    pool = mixed()
    estimates = make_estimator("oracle", pool, np.random.default_rng(0)).final()
    loads = request_loads(pool, estimates, UnitSeconds.of(COST))
    packed = is_packed(pool, loads, np.ones(len(pool), np.bool_))
    assert packed.any()
    assert pool.output_tokens[packed].min() > pool.output_tokens[~packed].mean()
    order = paced_order(pool, loads, ~packed)
    assert sorted(order) == np.flatnonzero(~packed).tolist()
    changes = np.count_nonzero(np.diff(pool.node[order]))
    assert changes <= 2  # prefix groups stay together


@pytest.mark.parametrize("lengths", ["oracle", "survival", "sampled", "mean"])
def test_every_estimator_beats_an_order_that_ignores_lengths(lengths: str) -> None:
    pool = mixed()
    assert share(pool, "ratio", lengths) > share(pool, "dfs", lengths) + 0.02


@pytest.mark.parametrize("overlap", ["frontier", "gamma:0.2"])
def test_known_lengths_come_close_to_the_optimum(overlap: str) -> None:
    pool = mixed(6000)
    assert share(pool, "ratio", "oracle", overlap=overlap) > share(pool, "dfs", overlap=overlap)


@pytest.mark.parametrize("variant", variant_names())
def test_a_variant_serves_the_pool_and_is_not_ratio(variant: str) -> None:
    pool = mixed()
    assert 0 < share(pool, variant, "survival") <= 1
    assert share(pool, variant, "survival") != share(pool, "ratio", "survival")


def test_an_unknown_variant_is_told_the_nearest() -> None:
    with pytest.raises(InputError, match="ratio:no-pacing"):
        make_scheduler("ratio:no-paceing")


def test_a_step_is_expected_only_while_anyone_runs() -> None:
    """Steps of a tail that is hardly ever reached hardly count, but their KV does not shrink."""
    tail = SurvivalCurves(np.linspace(0.0, -60.0, NUM_BINS + 1)[None, :], np.zeros(1, np.int32))
    future = ExpectedFuture(tail, np.inf, 0.0)
    future.add(0, 0, 1, 1)
    future.look(0)
    steps, kv = future.profile()
    alive = tail.still_running(np.zeros(1, np.int64), np.ones(1), HORIZONS)[0]
    assert steps == pytest.approx(np.diff(HORIZONS) * (alive[1:] + alive[:-1]) / 2)
    holds = alive * (1 + HORIZONS)
    assert steps * kv == pytest.approx(np.diff(HORIZONS) * (holds[1:] + holds[:-1]) / 2)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=40),
    st.sampled_from(["oracle", "survival", "mean"]),
    st.integers(1, 3),
)
def test_any_pool_is_served(rows: list[tuple[int, int]], lengths: str, replicas: int) -> None:
    prompts, outputs = zip(*rows, strict=True)
    result = simulate(
        make_workload("any", prompts, outputs),
        scheduler="ratio",
        llm=LLM,
        hardware=HARDWARE,
        engine=NANOFLOW.with_settings(
            {"num_gpu_blocks": 1900, "max_num_batched_tokens": 512, "max_num_seqs": 16}
        ),
        cost_model=COST,
        output_lengths=lengths,
        dp=replicas,
    )
    assert sorted(result.schedule.order.tolist()) == list(range(len(rows)))


def test_packed_requests_alone_may_fill_the_cache() -> None:
    """Four fill the cache: the fourth starts once no paced request is left to leave room for."""
    pool = make_workload("alike", [1] * 24, [1] * 20 + [9_999] * 4)
    result = simulate(
        pool,
        scheduler="ratio",
        llm=LLM,
        hardware=HARDWARE,
        engine=NANOFLOW.with_settings({"num_gpu_blocks": 40_001}),
        cost_model=COST,
        output_lengths="oracle",
    )
    assert 9_999 <= result.steps < 9_999 + 2 * LOOK_STEPS
    assert result.preemptions == 0


def test_who_comes_and_goes_is_summed_as_a_fresh_look_sums() -> None:
    """What is expected must not depend on how often anybody looked in between."""
    curves = SurvivalCurves.lognormal(np.full(5, 3000.0), np.full(5, 2 * 3000.0**2))
    often, once = (ExpectedFuture(curves, 1e9, 1.0) for _ in range(2))
    for r in range(5):
        often.add(r, 7, 100 + 50 * r, 10 * r)
        often.look(7)
        once.add(r, 7, 100 + 50 * r, 10 * r)
    often.remove(2)
    often.look(7)
    once.remove(2)
    once.look(7)
    for a, b in zip(often.profile(), once.profile(), strict=True):
        assert a == pytest.approx(b, rel=1e-9)
    assert often.remaining_tokens() == pytest.approx(once.remaining_tokens(), rel=1e-9)
    often.look(REFRESH_STEPS)
    fresh = ExpectedFuture(curves, 1e9, 1.0)
    for r in (0, 1, 3, 4):
        fresh.add(r, 7, 100 + 50 * r, 10 * r)
    fresh.look(REFRESH_STEPS)
    for a, b in zip(often.profile(), fresh.profile(), strict=True):
        assert a.tolist() == b.tolist()


def test_random_order_keeps_subtrees_whole_and_favours_none() -> None:
    tree = PrefixTree(np.array([-1, 0, 0, 0], np.int32), np.array([0, 50, 50, 50]))
    node = np.concatenate([np.full(200, 1), np.full(20, 2), np.full(20, 3), np.zeros(60, int)])
    pool = make_workload("trees", np.full(300, 80), np.full(300, 10), tree=tree, node=node)
    everyone = np.ones(300, np.bool_)
    rng = np.random.default_rng(0)
    places = []
    for _ in range(200):
        order = random_order(pool, everyone, rng, prefix_groups=True)
        assert sorted(order) == list(range(300))
        where = np.flatnonzero(np.isin(order, np.arange(200)))
        assert np.ptp(where) == 199  # the large subtree is whole
        places.append(int(where[0]) / 100)  # of the hundred others, how many come before
    assert np.quantile(places, 0.1) < 0.2
    assert np.quantile(places, 0.9) > 0.8


def test_prompts_too_large_for_their_room_are_not_all_asked_again() -> None:
    """Who finds no room beside packed requests is asked once more when somebody was admitted."""
    rng = np.random.default_rng(0)
    n = 400
    long = rng.random(n) < 0.1
    pool = make_workload(
        "large",
        np.where(long, 100, rng.integers(26_000, 40_000, n)),
        np.where(long, rng.integers(4_000, 9_000, n), 2),
    )
    asked = 0

    def counting(policy: AdmissionPolicy) -> Calls:
        def blocked(request: int) -> bool:
            nonlocal asked
            asked += 1
            return policy.blocked(request)

        return {"blocked": blocked}

    result = simulate(
        pool,
        scheduler=InterceptedScheduler(make_scheduler("ratio"), counting),
        llm=LLM,
        hardware=HARDWARE,
        engine=NANOFLOW.with_settings({"num_gpu_blocks": 467_001}),
        cost_model=COST,
        output_lengths="oracle",
    )
    assert result.preemptions == 0
    assert asked < 10 * n, asked


def test_a_sample_of_many_subtrees_runs_with_its_kin() -> None:
    """Subtrees of `MIN_SAMPLES` requests, each over 1 % of the pool, are sampled whole."""
    rng = np.random.default_rng(0)
    groups, size = 90, 30
    tree = PrefixTree(
        np.array([-1] + [0] * groups, np.int32), np.concatenate([[0], np.full(groups, 1500)])
    )
    node = rng.permutation(np.repeat(np.arange(1, groups + 1), size))
    pool = make_workload(
        "subtrees",
        rng.integers(1550, 1700, groups * size),
        rng.integers(5, 60, groups * size),
        tree=tree,
        node=node,
    )
    result = simulate(
        pool,
        scheduler="ratio",
        llm=LLM,
        hardware=HARDWARE,
        engine=NANOFLOW.with_settings({"num_gpu_blocks": 20_001}),
        cost_model=COST,
        output_lengths="survival",
    )
    assert result.cached_tokens > 0.95 * result.max_cached_tokens


@pytest.mark.parametrize("lengths", ["oracle", "survival"])
def test_memory_bound_requests_that_share_prefixes_run_with_their_kin(lengths: str) -> None:
    """Long prompts and outputs shorter than these: KV is short, and so is what it may cache."""
    rng = np.random.default_rng(0)
    groups, size = 200, 6  # smaller subtrees than are sampled whole
    tree = PrefixTree(
        np.array([-1] + [0] * groups, np.int32), np.concatenate([[0], np.full(groups, 1500)])
    )
    node = rng.permutation(np.repeat(np.arange(1, groups + 1), size))
    pool = make_workload(
        "kin",
        1500 + rng.integers(100, 3000, groups * size),
        rng.integers(200, 1200, groups * size),
        tree=tree,
        node=node,
    )

    def run(scheduler: str) -> tuple[float, float]:
        result = simulate(
            pool,
            scheduler=scheduler,
            llm=LLM,
            hardware=HARDWARE,
            engine=NANOFLOW.with_settings({"num_gpu_blocks": 60_001}),
            cost_model=COST,
            output_lengths=lengths,
        )
        return result.cached_tokens / result.max_cached_tokens, result.makespan_s

    sharing, seconds_ = run("ratio")
    assert sharing > 0.95
    assert seconds_ < 1.01 * run("blendserve")[1]


def test_the_kin_of_the_sample_come_while_their_prefix_is_cached() -> None:
    """Four questions per document: one that runs early must not cost its document twice."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(300), 4))
    tree, node = from_groups(group, np.full(300, 2000))
    pool = make_workload(
        "documents", np.full(1200, 2032), rng.integers(20, 80, 1200), tree=tree, node=node
    )
    result = simulate(
        pool,
        scheduler="ratio",
        llm=LLM,
        hardware=HARDWARE,
        engine=load_preset("vllm"),
        cost_model=COST,
        output_lengths="survival",
    )
    assert result.sharing > 0.985 * result.sharing_max


def test_the_margin_is_smaller_where_idle_kv_costs_more() -> None:
    """KV use passes the limit with half the probability of the fixed share of a step's cost."""
    assert margin(1.0, 0.25) == 1.0
    assert margin(1.0, 0.5) == pytest.approx(0.6745, abs=1e-4)
    assert margin(1.0, 1.0) == pytest.approx(0.0, abs=1e-9)
    assert margin(0.0, 0.25) == 0.0  # no-margin

    def of(kv_tokens: int) -> float:
        table = StepTokens(COST, parse_overlap("frontier"), NANOFLOW, kv_tokens)
        return margin(1.0, table.fixed_share)

    assert 0.0 <= of(50_000) < of(150_000) < of(CAPACITY) == 1.0


@pytest.mark.parametrize("term", ["prefill_context_tokens", "tokens_over_64", "sampled_tokens"])
@pytest.mark.parametrize("overlap", ["sequential", "frontier"])
def test_any_fitted_cost_model_will_do(term: str, overlap: str) -> None:
    """After few or noisy steps, `fit` may say that decode steps are free, as `run` saw it once."""
    result = simulate(
        make_workload("any", [40, 300, 7] * 8, [9, 50, 200] * 8, max_tokens=[300] * 24),
        scheduler="ratio",
        llm=LLM,
        hardware=HARDWARE,
        engine=NANOFLOW.with_settings({"overlap": overlap}),
        cost_model=FittedCostModel({term: 1e-4}, "noise", max_tokens=256.0),
        output_lengths="max_tokens",
    )
    assert sorted(result.schedule.order.tolist()) == list(range(24))
