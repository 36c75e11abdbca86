"""Steps of tiny pools, each worked out by hand: who computes how many tokens, and what is free."""

import numpy as np
import pytest

from bssim.errors import InputError
from tests.sim.harness import column, pool, run, scheduled, steps, unshared


def test_prompts_are_chunked_and_decodes_ride_along():
    rows = steps(unshared([10, 3, 4], [2, 3, 1]), max_num_batched_tokens=8, max_num_seqs=8, kv=40)
    assert scheduled(rows) == [
        {"r0": 8},
        {"r0": 2, "r1": 3, "r2": 3},  # r0 first: it is running; r2 gets what is left of 8
        {"r0": 1, "r1": 1, "r2": 1},  # r2 ends its prompt and has its one output token
        {"r1": 1},
    ]
    assert column(rows, "finished") == [[], [], ["r0", "r2"], ["r1"]]
    assert column(rows, "free_blocks") == [32, 24, 21, 35]


def test_a_slot_is_taken_over_the_step_after_it_is_left():
    rows = steps(unshared([2, 2, 2], [2, 1, 1]), max_num_seqs=2)
    assert scheduled(rows) == [{"r0": 2, "r1": 2}, {"r0": 1, "r2": 2}]


def test_unchunked_prompts_wait_for_a_step_with_room():
    rows = steps(
        unshared([4, 4, 2], [2, 2, 2]),
        enable_chunked_prefill=False,
        max_num_batched_tokens=6,
        max_num_seqs=3,
    )
    assert scheduled(rows) == [{"r0": 4}, {"r0": 1, "r1": 4}, {"r1": 1, "r2": 2}, {"r2": 1}]


def test_unchunked_requests_must_fit_a_step_even_after_a_preemption():
    two = unshared([15, 4], [3, 1])
    with pytest.raises(InputError, match="unchunked, max_num_batched_tokens 16"):
        steps(two, enable_chunked_prefill=False, max_num_batched_tokens=16)
    rows = steps(two, enable_chunked_prefill=False, max_num_batched_tokens=17)
    assert [list(row) for row in scheduled(rows)] == [["r0"], ["r0", "r1"], ["r0"]]


def test_the_prefill_threshold_holds_unless_the_request_is_alone():
    rows = steps(unshared([7, 5], [1, 1]), long_prefill_token_threshold=3)
    assert scheduled(rows) == [{"r0": 3, "r1": 3}, {"r0": 3, "r1": 2}, {"r0": 1}]
    assert scheduled(steps(unshared([7], [1]), long_prefill_token_threshold=3)) == [{"r0": 7}]


def test_prefix_hits_to_the_token_within_one_step():
    rows = steps(pool(["abcdefgh", "abcdefxy", "abcdefgh"], [1, 2, 1]), kv=40)
    # the last prompt token is always computed: r2 hits 7 of 8
    assert column(rows, "cached") == [{"r0": 0, "r1": 6, "r2": 7}, {}]
    assert scheduled(rows) == [{"r0": 8, "r1": 2, "r2": 1}, {"r1": 1}]
    # 8 + 2 new tokens; r2's copy of the last one is not kept
    assert column(rows, "free_blocks") == [40 - 10, 40 - 9]


def test_prefix_hits_in_whole_blocks():
    rows = steps(pool(["abcdefgh", "abcdefxy", "abcdefgh"], [1, 2, 1]), kv=10, block_size=4)
    assert column(rows, "cached") == [{"r0": 0, "r1": 4, "r2": 4}, {}]
    assert scheduled(rows) == [{"r0": 8, "r1": 4, "r2": 4}, {"r1": 1}]
    # one shared block and a second one each; then r1 alone: two, and one for its ninth token
    assert column(rows, "free_blocks") == [10 - 4, 10 - 3]


def test_prefixes_shared_by_running_requests_only():
    prompts = pool(["abcdx", "abcdy", "zz", "abcdw", "abcdv"], [3, 1, 1, 1, 1])
    rows = steps(prompts, kv=10, max_num_seqs=2, prefix_retention="none")
    assert column(rows, "cached") == [
        {"r0": 0, "r1": 4},
        {"r2": 0},
        {"r3": 4},  # r0 is still running
        {"r4": 0},  # nobody is
    ]


@pytest.mark.parametrize("block_size", [1, 2])
def test_no_hits_without_caching(block_size):
    twins = pool(["abcdefgh"] * 2, [1, 1])
    rows = steps(twins, enable_prefix_caching=False, block_size=block_size)
    assert scheduled(rows) == [{"r0": 8, "r1": 8}]
    assert column(rows, "free_blocks") == [1000 - 16 // block_size]


def test_the_least_recently_used_prefix_goes_first_and_from_its_end():
    letters = pool(["aaaa1", "bbbb1", "cccc1", "bbbb2", "aaaa2"], [1] * 5)
    rows = steps(letters, kv=12, max_num_seqs=1)
    # r2 needs 5: 2 empty, r0's own token, the last two a's. r3 has four b's and evicts one more a.
    assert [row["cached"][f"r{k}"] for k, row in enumerate(rows)] == [0, 0, 0, 4, 1]


def test_blocks_are_evicted_tail_first():
    letters = pool(["aaaa1", "bbbb1", "cc", "aaaa2", "bbbb2"], [1] * 5)
    rows = steps(letters, kv=6, max_num_seqs=1, block_size=2)
    # Two full blocks stay of r0 and r1 each; the fifths are unhashed and empty again: 2 free.
    # r2 takes one; r3 hits both blocks of a's and takes the other; r4 hits both blocks of b's.
    assert [row["cached"][f"r{k}"] for k, row in enumerate(rows)] == [0, 0, 0, 4, 4]
    rows = steps(letters, kv=4, max_num_seqs=1, block_size=2)
    # r1 needs three and only two are empty: a2 goes, not a1. r2's block stays too, so r3, which
    # hits a1, evicts b2 and b1 for its other two blocks.
    assert [row["cached"][f"r{k}"] for k, row in enumerate(rows)] == [0, 0, 0, 2, 0]


def test_preemption_recomputes_what_was_evicted():
    two = unshared([3, 3], [5, 5])
    rows = steps(two, kv=10)
    assert scheduled(rows) == [
        {"r0": 3, "r1": 3},
        {"r0": 1, "r1": 1},
        {"r0": 1, "r1": 1},  # full: 5 + 5
        {"r0": 1},  # r1 makes room, and loses a token at its end; another in the next step
        {"r0": 1},
        {"r1": 3},  # of its 5 computed tokens 3 are left; it recomputes 2 and samples from a third
        {"r1": 1},
    ]
    assert column(rows, "preempted") == [[], [], [], ["r1"], [], [], []]
    assert rows[5]["cached"] == {"r1": 3}
    assert column(rows, "free_blocks") == [4, 2, 0, 4, 3, 4, 3]
    result = run(two, kv=10)
    assert (result.preemptions, result.recomputed_tokens, result.peak_kv_tokens) == (1, 2, 10)
    assert result.cached_tokens == 0  # hits of its own tokens are no sharing


def test_preemption_without_caching_recomputes_all():
    two = unshared([3, 3], [5, 5])
    rows = steps(two, kv=10, enable_prefix_caching=False)
    assert scheduled(rows)[3:] == [{"r0": 1}, {"r0": 1}, {"r1": 6}, {"r1": 1}]
    assert run(two, kv=10, enable_prefix_caching=False).recomputed_tokens == 5


def test_a_preempted_request_comes_back_before_those_that_never_ran():
    three = unshared([4, 4, 2], [4, 3, 1])
    rows = steps(three, kv=9, max_num_seqs=2, enable_prefix_caching=False)
    assert scheduled(rows) == [
        {"r0": 4, "r1": 4},
        {"r0": 1},  # r1 goes: 4 tokens are free then
        {"r0": 1},  # r1 needs 5 now; r2 would fit and waits all the same
        {"r0": 1},
        {"r1": 5, "r2": 2},
        {"r1": 1},
    ]


def test_reserve_admission_fills_the_cache_exactly():
    two = unshared([4, 4], [6, 6])
    both = [{"r0": 4, "r1": 4}] + [{"r0": 1, "r1": 1}] * 5
    assert scheduled(steps(two, kv=20, admission="reserve")) == both
    one_by_one = scheduled(steps(two, kv=19, admission="reserve"))
    assert one_by_one == [{"r0": 4}, *[{"r0": 1}] * 5, {"r1": 4}, *[{"r1": 1}] * 5]
    # in blocks of four tokens: three blocks each
    assert scheduled(steps(two, kv=6, block_size=4, admission="reserve")) == both
    assert scheduled(steps(two, kv=5, block_size=4, admission="reserve")) == one_by_one


def test_reserve_admission_lets_a_request_in_when_another_leaves_enough():
    rows = steps(unshared([4, 2, 4], [6, 3, 2]), kv=16, admission="reserve")
    # 10 + 5 promised of 16; r2 wants 6. r1 is done after step 2 and leaves 6.
    assert [list(row) for row in scheduled(rows)] == [
        ["r0", "r1"],
        ["r0", "r1"],
        ["r0", "r1"],
        ["r0", "r2"],
        ["r0", "r2"],
        ["r0"],
    ]


def test_reserve_admission_counts_a_shared_prefix_once():
    twins = pool(["abcdefgh", "abcdefgi"], [2, 2])
    # r0: 8 + 2; r1 beside it: one token of its own prompt and two outputs
    assert scheduled(steps(twins, kv=13, admission="reserve"))[0] == {"r0": 8, "r1": 1}
    assert scheduled(steps(twins, kv=12, admission="reserve"))[0] == {"r0": 8}


def test_requests_that_outgrow_their_reservation_owe_nothing():
    # Both are thought to take 3 output tokens, the mean; r0 takes 5 and r1 takes 1.
    two = unshared([2, 2, 2], [5, 1, 3])
    rows = steps(two, kv=12, admission="reserve", output_lengths="mean", max_num_seqs=2)
    assert scheduled(rows) == [
        {"r0": 2, "r1": 2},
        {"r0": 1, "r2": 2},
        {"r0": 1, "r2": 1},
        {"r0": 1, "r2": 1},
        {"r0": 1},
    ]


def test_the_watermark_is_kept_free_unless_nothing_runs():
    two = unshared([4, 4], [2, 2])
    assert scheduled(steps(two, kv=9, watermark=0.1))[0] == {"r0": 4, "r1": 4}
    assert scheduled(steps(two, kv=9, watermark=0.2))[0] == {"r0": 4}
    assert scheduled(steps(unshared([9], [1]), kv=9, watermark=0.9)) == [{"r0": 9}]


def test_priority_orders_admission_and_picks_the_victim():
    three = unshared([2, 2, 2], [2, 2, 2], priority=[2, 1, 0])
    rows = steps(three, policy="priority", max_num_seqs=1)
    assert scheduled(rows) == [{"r2": 2}, {"r2": 1}, {"r1": 2}, {"r1": 1}, {"r0": 2}, {"r0": 1}]
    two = unshared([4, 4], [4, 4], priority=[1, 0])
    rows = steps(two, policy="priority", kv=10)
    assert list(scheduled(rows)[0]) == ["r1", "r0"]
    assert column(rows, "preempted")[2] == ["r0"]


def test_padding_fills_the_dense_batch():
    result = run(
        unshared([10, 3, 4], [2, 3, 1]),
        max_num_batched_tokens=8,
        max_num_seqs=8,
        batch_multiple=8,
        record_timeline=True,
    )
    (timeline,) = result.timelines
    work = timeline.work
    assert np.asarray(work.tokens).tolist() == [8, 8, 3, 1]
    assert np.asarray(work.padding_tokens).tolist() == [0, 0, 5, 7]
    assert np.asarray(work.gemm_tokens).tolist() == [8, 8, 8, 8]
    # step 1: r0 from 8, 2 tokens; r1 3; r2 3. Step 2: r0 and r1 decode; r2's last token.
    assert np.asarray(work.decode_requests).tolist() == [0, 0, 2, 1]
    assert np.asarray(work.decode_context_tokens).tolist() == [0, 0, 10 + 3, 4]
    assert np.asarray(work.prefill_requests).tolist() == [1, 3, 1, 0]
    assert np.asarray(work.prefill_context_tokens).tolist() == [0, 8, 3, 0]
    assert np.asarray(work.prefill_attention_pairs).tolist() == [36, 9 + 10 + 6 + 6, 4, 0]
    assert np.asarray(work.sampled_tokens).tolist() == [0, 2, 3, 1]
    assert timeline.running.tolist() == [1, 3, 3, 1]
    assert timeline.kv_tokens.tolist() == [8, 16, 19, 5]


def test_a_prompt_wholly_in_the_cache_fits_where_it_fit_before():
    twins = pool(["abcdefghij"] * 3, [1] * 3)
    rows = steps(twins, kv=10, max_num_seqs=1)
    assert scheduled(rows) == [{"r0": 10}, {"r1": 1}, {"r2": 1}]
    assert column(rows, "free_blocks") == [0, 0, 0]
    # ... though the prefix goes on below it
    family = pool(["ab", "abcd", "abce", "ab", "abcd"], [1] * 5)
    rows = steps(family, kv=5, max_num_seqs=1)
    assert [row["cached"][f"r{k}"] for k, row in enumerate(rows)] == [0, 2, 3, 1, 3]


def test_async_scheduling_releases_a_step_later():
    three = unshared([2, 2, 2], [2, 4, 1])
    rows = steps(three, max_num_seqs=2, async_scheduling=True)
    # r0 is done after step 1, which is known when step 2 is already scheduled
    assert scheduled(rows) == [
        {"r0": 2, "r1": 2},
        {"r0": 1, "r1": 1},
        {"r1": 1},
        {"r1": 1, "r2": 2},
    ]
    assert column(rows, "finished") == [[], ["r0"], [], ["r1", "r2"]]
    assert scheduled(steps(three, max_num_seqs=2))[2:] == [{"r1": 1, "r2": 2}, {"r1": 1}]


def test_replicas_without_work_are_idle():
    two = unshared([4, 4], [2, 2])
    rows = steps(two, dp=3)
    assert sorted((row["replica"], row["step"]) for row in rows) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    result = run(two, dp=3, record_timeline=True)
    assert [len(t.step_s) for t in result.timelines] == [2, 2, 0]
    assert result.schedule.replica.tolist() == [0, 1]


def test_tokens_computed_twice_are_not_held_twice():
    # r1 hits the three tokens r0 has and computes the other two first; r0 computes them again.
    # Were r0 to hold both copies, its nine tokens would not fit the cache it fits alone.
    rows = steps(
        pool(["aaaaa", "aaaaa"], [5, 3]),
        kv=9,
        max_num_batched_tokens=8,
        max_num_seqs=3,
        long_prefill_token_threshold=3,
        prefix_retention="none",
    )
    assert scheduled(rows)[:3] == [{"r0": 3, "r1": 2}, {"r0": 2, "r1": 1}, {"r0": 1, "r1": 1}]
    assert column(rows, "free_blocks")[:3] == [4, 3, 1]
    assert [r for row in rows for r in row["finished"]] == ["r1", "r0"]
