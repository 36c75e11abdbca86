"""The tail of a run: what the last few requests take."""

import pytest

from tests.sim.harness import run, unshared


def test_one_long_output_is_the_tail():
    result = run(unshared([10] * 11, [5] * 10 + [100]), kv=10_000, max_num_batched_tokens=256)
    # Step 0 prefills all and samples their first tokens; the others end with step 4.
    assert result.tail.requests == 1
    assert result.tail.tokens == 95
    assert result.tail.start_s == pytest.approx(result.finish_s[0])
    assert result.tail_share == pytest.approx(1 - result.finish_s[0] / result.makespan_s)
    before = (110 + 150 - 95) / result.finish_s[0]
    assert result.throughput_without_tail_tok_s == pytest.approx(before)
    assert result.tail_note.startswith("a tail of 1 request takes 95% of the makespan")


def test_a_tenth_of_the_requests_that_ran_at_the_last_admission():
    outputs = [10] * 27 + [40, 50, 60]
    result = run(unshared([1] * 30, outputs), kv=10_000, max_num_seqs=30)
    assert (result.tail.requests, result.tail.tokens) == (3, 30 + 40 + 50)
    slow = run(unshared([1] * 30, outputs), kv=10_000, max_num_seqs=10)
    assert slow.tail.requests == 1


def test_runs_without_a_tail():
    alone = run(unshared([10] * 3, [5, 5, 500]), kv=10_000, max_num_seqs=1)
    together = run(unshared([10] * 6, [5] * 6), kv=10_000)
    for result in (alone, together):
        assert (result.tail.requests, result.tail.tokens, result.tail_share) == (0, 0, 0.0)
        assert result.throughput_without_tail_tok_s == result.throughput_tok_s
        assert result.tail_note is None


@pytest.mark.parametrize("where", [{"dp": 2}, {"disaggregation": "1P2D"}])
def test_the_tail_is_that_of_all_replicas(where):
    result = run(unshared([10] * 12, [5] * 11 + [100]), kv=10_000, scheduler="fcfs", **where)
    assert result.tail.requests == 1
    assert 90 <= result.tail.tokens <= 95
    assert result.tail.start_s < result.makespan_s


def test_a_preempted_request_runs_again_before_the_tail():
    result = run(unshared([4, 4, 4], [12, 12, 12]), kv=24)
    assert result.preemptions
    assert result.tail.start_s >= result.finish_s.min()
    assert result.tail.tokens <= 12
