"""`ratio` on small pools: it simulates what may happen, and never uses true lengths for it."""

from dataclasses import replace

import numpy as np
import pytest

from bssim.sim.result import SimulationResult
from bssim.sim.schedulers import make_scheduler
from bssim.sim.schedulers.ratio import Ratio, RatioOptions, small_pools
from bssim.sim.workload import PrefixTree, Workload, make_workload
from tests.sim.harness import run

ENGINE = {"kv": 20_000, "max_num_batched_tokens": 512, "max_num_seqs": 64}


def pool(seed: int, n: int = 300, caps: tuple[int, ...] = (64, 1024)) -> Workload:
    """Requests in ten prefix groups, outputs up to each one's own cap."""
    rng = np.random.default_rng(seed)
    tree = PrefixTree(np.array([-1] + [0] * 10, np.int32), np.array([0] + [200] * 10))
    cap = rng.choice(caps, n)
    return make_workload(
        "pool",
        200 + rng.integers(10, 400, n),
        np.ceil(cap * rng.random(n) ** 2).astype(int),
        tree=tree,
        node=rng.integers(1, 11, n),
        max_tokens=cap,
    )


def served(pool: Workload, lengths: str, **options: object) -> SimulationResult:
    return run(pool, "ratio", output_lengths=lengths, **ENGINE, **options)


def chosen(result: SimulationResult) -> str:
    return next((note for note in result.notes if "small pool" in note), "")


@pytest.mark.parametrize("overlap", ["sequential", "frontier"])
@pytest.mark.parametrize("seed", range(4))
def test_with_known_lengths_it_is_never_behind_simple_orders(seed: int, overlap: str) -> None:
    requests = pool(seed)
    ours = served(requests, "oracle", overlap=overlap).makespan_s
    for simple in ("fcfs", "dfs", "dfs_memory_first"):
        assert ours <= run(requests, simple, overlap=overlap, **ENGINE).makespan_s


def test_with_known_lengths_it_is_never_behind_on_several_replicas() -> None:
    requests = pool(1)
    ours = served(requests, "oracle", dp=2).makespan_s
    for simple in ("fcfs", "dfs"):
        assert ours <= run(requests, simple, dp=2, **ENGINE).makespan_s


@pytest.mark.parametrize("lengths", ["survival", "sampled"])
def test_the_choice_does_not_depend_on_true_lengths(lengths: str) -> None:
    requests = pool(0)
    others = replace(requests, output_tokens=np.ones_like(requests.output_tokens))
    result = served(requests, lengths)
    assert chosen(result)
    assert chosen(served(others, lengths)) == chosen(result)


def test_caps_that_tell_which_outputs_are_long_decide_the_order() -> None:
    """A cap of 1,024 behind many of 64: whatever the lengths are, it must not start last."""
    requests = pool(2, caps=(32,))
    caps = requests.max_tokens
    assert caps is not None
    caps = np.append(caps[:-5], [4000] * 5)
    outputs = np.append(requests.output_tokens[:-5], [2000] * 5)
    requests = replace(requests, output_tokens=outputs, max_tokens=caps)
    ours = served(requests, "survival").makespan_s
    assert ours < 0.97 * run(requests, "fcfs", **ENGINE).makespan_s


@pytest.mark.parametrize("caps", ["far above", "unrelated"])
def test_caps_are_not_taken_for_lengths(caps: str) -> None:
    """`max_tokens` says how long outputs may be. Nothing waits for a KV cache that stays empty."""
    rng = np.random.default_rng(0)
    outputs = rng.integers(50, 400, 200)
    most = np.full(200, 4000) if caps == "far above" else outputs * rng.integers(1, 9, 200)
    requests = make_workload("pool", rng.integers(10, 400, 200), outputs, max_tokens=most)
    engine = {"kv": 130_000, "max_num_batched_tokens": 512, "max_num_seqs": 256}
    ours = run(requests, "ratio", output_lengths="max_tokens", **engine).makespan_s
    for simple in ("fcfs", "dfs"):
        assert ours <= 1.01 * run(requests, simple, **engine).makespan_s


def test_caps_above_the_kv_cache_are_cut() -> None:
    requests = pool(3, n=40, caps=(64, 100_000))
    requests = replace(requests, output_tokens=np.minimum(requests.output_tokens, 50))
    assert chosen(served(requests, "survival"))


@pytest.mark.parametrize("lengths", ["survival", "sampled"])
@pytest.mark.parametrize("n", [60, 200])
def test_without_caps_a_pool_that_ends_soon_is_not_held_back(n: int, lengths: str) -> None:
    """Its sample is a large part of it. `ratio` itself takes up to 16 % longer than `dfs` here."""
    rng = np.random.default_rng(0)
    outputs = rng.integers(50, 400, n)
    requests = make_workload("pool", rng.integers(10, 400, n), outputs)
    engine = {"kv": 130_000, "max_num_batched_tokens": 512, "max_num_seqs": 256}
    ours = run(requests, "ratio", output_lengths=lengths, **engine).makespan_s
    assert ours <= 1.01 * run(requests, "dfs", **engine).makespan_s


def test_without_caps_the_choice_does_not_depend_on_true_lengths() -> None:
    requests = replace(pool(0, n=60), max_tokens=None)
    others = replace(requests, output_tokens=np.ones_like(requests.output_tokens))
    result = served(requests, "survival")
    assert chosen(result)
    assert chosen(served(others, "survival")) == chosen(result)


def far_above(n: int, lengths: str) -> tuple[SimulationResult, SimulationResult]:
    """Serve short outputs below caps of more than 5 million tokens; also return `dfs`."""
    rng = np.random.default_rng(0)
    outputs, prompts = rng.integers(50, 400, n), rng.integers(10, 400, n)
    requests = make_workload("pool", prompts, outputs, max_tokens=np.full(n, 16_384))
    engine = {"kv": 130_000, "max_num_batched_tokens": 512, "max_num_seqs": 256}
    ours = run(requests, "ratio", output_lengths=lengths, **engine)
    return ours, run(requests, "dfs", **engine)


def test_caps_that_add_up_to_too_many_tokens_are_not_taken_for_lengths() -> None:
    ours, dfs = far_above(400, "max_tokens")
    assert chosen(ours)
    assert ours.makespan_s <= 1.01 * dfs.makespan_s


def test_before_the_sample_such_caps_count_as_unknown() -> None:
    ours, dfs = far_above(700, "sampled")
    assert "of 2 orders" in chosen(ours)
    assert ours.makespan_s <= 1.01 * dfs.makespan_s


@pytest.mark.parametrize(
    ("limit", "lengths"), [("MOST_REQUESTS", "survival"), ("MOST_TOKENS", "mean")]
)
def test_a_large_pool_is_served_by_ratio_itself(
    limit: str, lengths: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = pool(0)
    alone = Ratio(options=RatioOptions(small_pools=False))
    result = run(requests, alone, output_lengths=lengths, **ENGINE)
    assert chosen(served(requests, lengths))
    monkeypatch.setattr(small_pools, limit, 100)
    ours = served(requests, lengths)
    assert not chosen(ours)
    assert ours.schedule.order.tolist() == result.schedule.order.tolist()


def test_reserve_admission_is_served_by_ratio_itself() -> None:
    result = served(pool(0), "survival", admission="reserve")
    assert not chosen(result)


def test_the_plan_is_the_same_each_time() -> None:
    first, second = (served(pool(5), "survival") for _ in range(2))
    assert first.schedule.order.tolist() == second.schedule.order.tolist()


def test_its_name_stays_ratio() -> None:
    assert make_scheduler("ratio").name == served(pool(5), "survival").schedule.scheduler
