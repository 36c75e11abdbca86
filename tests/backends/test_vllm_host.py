"""CPU time of vLLM's own code: measured on the real engine."""

import pytest

pytest.importorskip("vllm")

from bssim.backends.profiling.vllm_host import STAGES, measure


def test_every_stage_is_timed_and_more_requests_take_more_time():
    few, many = measure((4, 64))
    assert (few["requests"], many["requests"]) == (4, 64)
    for stage in STAGES:
        assert few[stage] > 0
    assert many["schedule"] > 2 * few["schedule"]
    assert many["total"] == pytest.approx(sum(many[stage] for stage in STAGES))
