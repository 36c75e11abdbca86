"""Makespans that a formula gives, on the paper's cost model with operators one after another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.sim.schedule import read_schedule, write_schedule
from bssim.sim.schedulers import ScheduleOrder
from tests.sim.harness import HARDWARE, LLM, pool, run, unshared

TOKEN_S = 2 * LLM.num_active_params / HARDWARE.flops
WEIGHTS_S = LLM.weight_bytes / HARDWARE.bandwidth
KV_S = LLM.kv_bytes_per_token / HARDWARE.bandwidth


def dense_s(tokens: float) -> float:
    return max(tokens * TOKEN_S, WEIGHTS_S)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 200), st.sampled_from([64, 512, 2048]))
def test_one_request_alone(p, d, budget):
    result = run(unshared([p], [d]), kv=4000, max_num_batched_tokens=budget, max_num_seqs=1)
    chunks = [budget] * (p // budget) + ([p % budget] if p % budget else [])
    prefill = sum(dense_s(c) for c in chunks)
    reads = sum(p + k for k in range(d - 1))
    assert result.steps == len(chunks) + d - 1
    assert result.makespan_s == pytest.approx(prefill + (d - 1) * dense_s(1) + reads * KV_S)
    assert result.peak_kv_tokens == p + d - 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 60), st.integers(1, 300))
def test_equal_requests_that_start_together(n, d, p):
    result = run(
        unshared([p] * n, [d] * n), kv=200_000, max_num_batched_tokens=200_000, max_num_seqs=n
    )
    reads = n * sum(p + k for k in range(d - 1))
    want = dense_s(n * p) + (d - 1) * dense_s(n) + reads * KV_S
    assert result.steps == d
    assert result.makespan_s == pytest.approx(want)
    assert result.memory_s == pytest.approx(reads * KV_S)
    assert result.compute_s == pytest.approx(want - reads * KV_S)


def test_equal_requests_in_waves():
    """Two fit at a time: every wave is the same, and a wave's last step is not the next's first."""
    result = run(unshared([10] * 8, [5] * 8), kv=28, enable_prefix_caching=False)
    wave = dense_s(20) + 4 * dense_s(2) + 2 * (10 + 11 + 12 + 13) * KV_S
    assert result.makespan_s == pytest.approx(4 * wave)
    assert result.finish_s == pytest.approx(np.repeat(np.arange(1, 5) * wave, 2))


def test_replicas_share_the_work_evenly():
    w = unshared([100] * 8, [20] * 8)
    one, two = run(w, kv=10_000), run(w, kv=10_000, dp=2)
    four = run(unshared([100] * 4, [20] * 4), kv=10_000)
    assert two.makespan_s == pytest.approx(four.makespan_s)
    assert two.makespan_s < one.makespan_s < 2 * two.makespan_s


def test_the_practical_optimum_is_reached_where_nothing_is_in_the_way():
    """Prefill only, in steps that fill the GPU: no weight load shows, nothing is recomputed."""
    w = unshared([1000] * 50, [1] * 50)
    result = run(w, kv=100_000, max_num_batched_tokens=1000)
    assert result.share_of_optimum == pytest.approx(1.0)
    assert result.share_of_bound == pytest.approx(1.0)
    assert result.bounds.ideal_s == pytest.approx(50 * 1000 * TOKEN_S)


def test_the_critical_path_is_tight_for_one_long_output():
    result = run(unshared([1], [500]), kv=600)
    reads = sum(1 + k for k in range(499)) * KV_S
    assert result.bounds.critical_path_s == pytest.approx(500 * WEIGHTS_S)
    assert result.makespan_s == pytest.approx(500 * WEIGHTS_S + reads)


def test_the_kv_bound_counts_the_waves_that_capacity_forces():
    """One at a time: 20 requests of 2 + k tokens in a cache for one of them."""
    w = unshared([2] * 20, [400] * 20)
    result = run(w, kv=401, admission="reserve")
    held = 20 * (399 * 2 + 400 * 399 / 2)
    assert result.bounds.kv_capacity_s == pytest.approx(np.ceil(held / 401) * WEIGHTS_S)
    assert result.steps == 20 * 400
    assert 0.4 < result.bounds.tightest_s / result.makespan_s < 0.6  # contexts are half full


def test_hits_leave_only_what_is_new_to_compute():
    w = pool(["s" * 500 + chr(65 + k) * 100 for k in range(10)], [1] * 10)
    result = run(w, kv=10_000, max_num_batched_tokens=600)
    assert result.compute_s == pytest.approx(dense_s(600) + dense_s(600) + dense_s(300))
    assert result.sharing == result.sharing_max == 9 * 500 / 6000


@pytest.mark.parametrize("scheduler", ["fcfs", "random", "dfs", "dfs_compute_first"])
@pytest.mark.parametrize("dp", [1, 3])
def test_a_schedule_run_again_gives_the_same_result(scheduler, dp, tmp_path):
    rng = np.random.default_rng(1)
    prompts = ["".join(rng.choice(list("ab"), 12)) for _ in range(60)]
    w = pool(prompts, rng.integers(1, 30, 60).tolist())
    knobs = {"kv": 80, "dp": dp, "block_size": 2, "seed": 5}
    first = run(w, scheduler, **knobs)
    assert first.preemptions > 0 or dp > 1
    write_schedule(tmp_path / "s.jsonl", first.schedule, w)
    again = run(w, ScheduleOrder(read_schedule(tmp_path / "s.jsonl", w)), **knobs)
    assert again.finish_s.tolist() == first.finish_s.tolist()
    assert again.makespan_s == first.makespan_s
    assert again.preemptions == first.preemptions
    write_schedule(tmp_path / "again.jsonl", again.schedule, w)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "s.jsonl").read_bytes()


def test_a_schedule_is_for_its_pool_and_replicas():
    w = unshared([2, 3, 4], [1, 2, 3])
    order = ScheduleOrder(run(w, "random", dp=2).schedule)
    with pytest.raises(ValueError, match="replica 1"):
        run(w, order)
    with pytest.raises(ValueError, match="digest"):
        run(unshared([2, 3, 4], [1, 2, 4]), order, dp=2)
    assert len(run(w, order, dp=3).schedule.order) == 3
