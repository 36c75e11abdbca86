"""Requests that can never run are named, or dropped and counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bssim.errors import InputError
from bssim.sim.schedule import read_schedule, scheduled_pool, write_schedule
from bssim.sim.workload import subsample
from tests.sim.harness import run, unshared

POOL = unshared([10, 20, 30], [5, 5, 5])


def test_a_request_larger_than_the_cache_is_named():
    with pytest.raises(InputError, match=r"request 'r1' has 20 prompt \+ 5 output.*and 1 more"):
        run(POOL, kv=23)


def test_a_request_longer_than_the_model_takes_is_dropped_and_counted():
    result = run(POOL, max_model_len=25, on_oversize="drop")
    assert result.num_requests == 2
    assert sum("dropped 1 request" in note for note in result.notes) == 1


def test_requests_that_are_left_keep_their_ids_and_notes_come_once():
    pool = replace(unshared([30, 20, 10], [5, 5, 5]), notes=("read with care",))
    result = run(pool, kv=23, on_oversize="drop")
    assert [result.workload.request_id(i) for i in range(result.num_requests)] == ["r2"]
    assert result.notes.count("read with care") == 1


def test_a_schedule_without_the_oversize_requests_is_found_in_the_whole_pool(tmp_path: Path):
    """What `bssim replay` does: it reads the whole file, and the run left requests out of it."""
    whole = unshared([10, 90, 20, 30], [5, 5, 5, 5])
    result = run(whole, "dfs", kv=40, on_oversize="drop")
    path = tmp_path / "s.jsonl"
    write_schedule(path, result.schedule, result.workload)
    pool = scheduled_pool(path, whole)
    assert [pool.request_id(i) for i in range(len(pool))] == ["r0", "r2", "r3"]
    assert read_schedule(path, pool).order.tolist() == result.schedule.order.tolist()
    with pytest.raises(InputError, match="num_requests 3 and left_out 1; expected the 3 requests"):
        scheduled_pool(path, pool)


def test_a_sample_of_a_pool_keeps_the_ids_of_its_rows():
    pool = unshared(list(range(1, 21)), [1] * 20)
    sample = subsample(pool, 5, np.random.default_rng(0))
    assert [sample.request_id(i) for i in range(5)] == [
        f"r{tokens - 1}" for tokens in sample.prompt_tokens.tolist()
    ]


def test_a_pool_of_which_nothing_fits_is_an_error():
    with pytest.raises(InputError, match="no request fits"):
        run(POOL, kv=5, on_oversize="drop")
