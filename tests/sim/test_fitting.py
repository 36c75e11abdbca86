"""Requests that can never run are named, or dropped and counted."""

import pytest

from bssim.errors import InputError
from tests.sim.harness import run, unshared

POOL = unshared([10, 20, 30], [5, 5, 5])


def test_a_request_larger_than_the_cache_is_named():
    with pytest.raises(InputError, match=r"request 'r1' has 20 prompt \+ 5 output.*and 1 more"):
        run(POOL, kv=23)


def test_a_request_longer_than_the_model_takes_is_dropped_and_counted():
    result = run(POOL, max_model_len=25, on_oversize="drop")
    assert result.num_requests == 2
    assert any("dropped 1 request" in note for note in result.notes)


def test_a_pool_of_which_nothing_fits_is_an_error():
    with pytest.raises(InputError, match="no request fits"):
        run(POOL, kv=5, on_oversize="drop")
