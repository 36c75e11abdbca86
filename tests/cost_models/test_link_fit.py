"""Latency and bandwidth of links from all-reduces whose seconds are known."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssim.cost_models.fitting import (
    OperatorTime,
    build_profile,
    fit_link,
    operator_time,
    write_hardware,
)
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import StepWork
from bssim.errors import InputError
from tests.cost_models.test_profile import machine

LLM = load_llm("llama-3-8b")
TOKENS = (1, 8, 64, 256, 1024, 4096)
UNSEEN = (32, 512, 2048)


def ring(latency: float, bandwidth: float) -> Callable[[int, float], float]:
    return lambda gpus, size: 2 * (gpus - 1) * latency + 2 * (gpus - 1) / gpus * size / bandwidth


def reduces(
    seconds: Callable[[int, float], float], gpus: tuple[int, ...] = (2, 4), spread: float = 0.02
) -> list[OperatorTime]:
    token = LLM.hidden_size * LLM.dtype_bytes
    return [
        operator_time(LLM, "all_reduce", (g, n * token), seconds(g, n * token), spread, n in UNSEEN)
        for g in gpus
        for n in (*TOKENS, *UNSEEN)
    ]


@given(st.floats(1e-7, 1e-4), st.floats(1e9, 1e12))
def test_a_ring_comes_out(latency: float, bandwidth: float) -> None:
    fit = fit_link(reduces(ring(latency, bandwidth)), "measured: here")
    assert fit.latency_s <= latency * 1.0001
    most = 0.9 * min(
        time.seconds / (2 * (time.at["gpus"] - 1)) for time in reduces(ring(latency, bandwidth))
    )
    assert fit.latency_s == pytest.approx(min(latency, most), rel=1e-3)
    if latency <= most:
        assert fit.bandwidth == pytest.approx(bandwidth, rel=1e-3)
        assert np.max(fit.errors) < 1e-3


@given(st.lists(st.floats(0.3, 3.0), min_size=12, max_size=12))
def test_measured_messages_are_exact_whatever_they_are(factors: list[float]) -> None:
    """No line goes through these seconds: the curve takes what the line leaves."""
    seen = [time for time in reduces(ring(5e-6, 1e11)) if not time.held_out]
    times = [
        replace(time, seconds=time.seconds * factor)
        for time, factor in zip(seen, factors, strict=True)
    ]
    fit = fit_link(times, "measured: here")
    assert fit.latency_s >= 0
    for time in times:
        assert fit.seconds(time.at["gpus"], time.at["bytes"]) == pytest.approx(time.seconds)


def test_a_step_on_the_measured_machine_pays_its_all_reduces(tmp_path) -> None:
    link = ring(2e-6, 2e11)
    profile = build_profile([*machine(), *reduces(link, (2,))], "measured: here")
    path = tmp_path / "mine.yaml"
    hardware = write_hardware(path, base="h100-sxm", measurement={}, sections=[profile.as_yaml()])
    assert hardware.link_bandwidth == pytest.approx(2e11, rel=0.01)
    assert hardware.link_latency_s == pytest.approx(2e-6, rel=0.11)
    model = RooflineCostModel(LLM, hardware, tp=2)
    for tokens in (64, 700):
        work = StepWork(float(tokens), 100.0 * tokens, 0, 0, 0, 0, float(tokens))
        network = {o.name: o for o in model.operators(work) if o.resource == "communication"}
        found = network["all_reduce"]
        expected = (2 * LLM.num_layers + 1) * link(2, tokens * LLM.hidden_size * 2)
        assert found.seconds == pytest.approx(expected, rel=0.02)
        assert found.provenance.startswith("measured: here")
        assert "3 messages held out: median error" in found.provenance
        both = found.seconds + network["logits_gather"].seconds
        assert float(model.step_cost(work).communication_s) == pytest.approx(both)
        assert float(model.ideal_cost(work).communication_s) < both


def test_without_all_reduces_links_are_those_of_the_base(tmp_path) -> None:
    profile = build_profile(machine(), "measured: here")
    assert profile.link is None
    hardware = write_hardware(
        tmp_path / "mine.yaml", base="h100-sxm", measurement={}, sections=[profile.as_yaml()]
    )
    assert hardware.link_bandwidth == load_hardware("h100-sxm").link_bandwidth
    assert hardware.sources["link_bandwidth"].startswith("as h100-sxm: ")
    assert hardware.sources["all_reduce"].startswith("as h100-sxm: ")


def test_dirty_links_say_so_without_blaming_the_other_operators(tmp_path) -> None:
    times = [*machine(), *reduces(ring(2e-6, 2e11), spread=0.3)]
    profile = build_profile(times, "measured: here")
    assert profile.link is not None
    assert (profile.is_dirty, profile.link.is_dirty) == (False, True)
    hardware = write_hardware(
        tmp_path / "mine.yaml", base="cpu", measurement={}, sections=[profile.as_yaml()]
    )
    dirty = {name for name, source in hardware.sources.items() if "DIRTY" in source}
    reduces_of_all = {"all_reduce", "all_reduce_nccl", "all_reduce_trtllm"}
    assert dirty == {*reduces_of_all, "link_bandwidth", "link_latency_s"}


def test_held_out_messages_alone_fit_nothing() -> None:
    unseen = [time for time in reduces(ring(1e-6, 1e11)) if time.held_out]
    with pytest.raises(InputError, match="no all-reduce to fit links to"):
        fit_link(unseen, "measured: here")
