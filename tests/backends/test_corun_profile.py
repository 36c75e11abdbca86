"""Measuring overlap, on a machine whose seconds are known."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssim.backends.profiling import CudaCoRunner, OverlapPlan, Pair, measure_overlap, pairs
from bssim.backends.profiling.corun import interleaved, launch_counts
from bssim.cost_models.fitting import fit_corun
from bssim.cost_models.llm import load_llm
from bssim.cost_models.overlap import FrontierOverlap
from bssim.cost_models.step_cost import StepCost
from bssim.errors import InputError

LLM = load_llm("llama-3-8b")


class KnownMachine:
    """Overlaps as the published frontier says; now and then something else runs on it."""

    def __init__(self, rng: np.random.Generator, pauses: float = 0.0) -> None:
        self.calls: list[tuple[Pair, int, int]] = []
        self._rng, self._pauses = rng, pauses

    def seconds(self, pair: Pair, gemms: int, attentions: int) -> float:
        self.calls.append((pair, gemms, attentions))
        compute = gemms * 2.0 * pair.rows * pair.n * pair.k / 5e14
        memory = attentions * pair.requests * pair.context * 4096 / 2e12
        alone = StepCost(compute, memory, 0.0, 0.0, 0.0)
        together = float(np.asarray(FrontierOverlap().step_seconds(alone)))
        return together * (3.0 if self._rng.random() < self._pauses else 1.0)


def test_pairs_are_the_largest_gemm_with_batches_that_fit() -> None:
    found = pairs(LLM, OverlapPlan(max_bytes=4096 * 64 * 4096))
    assert {(pair.n, pair.k) for pair in found} == {(28672, 4096)}
    assert {pair.rows for pair in found} == {512, 2048}
    assert {(p.requests, p.context) for p in found} == {
        (64, 1024),
        (256, 1024),
        (64, 4096),
        (128, 2048),
    }
    assert {p.held_out for p in found if p.requests == 128} == {True}
    few = pairs(LLM, OverlapPlan(max_bytes=4096 * 64 * 1024))
    assert {(p.requests, p.context) for p in few} == {(64, 1024)}


@given(st.floats(1e-5, 1e-2), st.floats(1e-5, 1e-2), st.floats(0.25, 4.0))
def test_launches_make_up_the_ratio(gemm: float, attention: float, ratio: float) -> None:
    gemms, attentions = launch_counts(gemm, attention, ratio)
    assert min(gemms, attentions) == 4
    if max(gemms, attentions) < 512:
        assert attentions * attention / (gemms * gemm) == pytest.approx(ratio, rel=0.15)


def test_launches_of_both_streams_are_spread_over_the_run() -> None:
    order = interleaved(4, 8)
    assert (order.count(False), order.count(True)) == (4, 8)
    assert all(order[i : i + 3].count(True) == 2 for i in range(0, 12, 3))
    assert interleaved(3, 0) == [False] * 3


def test_the_frontier_of_the_machine_comes_out_despite_pauses() -> None:
    runner = KnownMachine(np.random.default_rng(1), pauses=0.1)
    plan, seen = OverlapPlan(), list[tuple[int, int]]()
    measured = measure_overlap(
        pairs(LLM, plan),
        runner,
        ratios=plan.ratios,
        repeats=9,
        rng=np.random.default_rng(0),
        progress=lambda done, total: seen.append((done, total)),
    )
    cases = len(pairs(LLM, plan)) * len(plan.ratios)
    assert len(measured) == cases
    assert seen[-1] == (9 * cases, 9 * cases)
    assert all(len(m.gemm_s) == len(m.attention_s) == len(m.together_s) == 9 for m in measured)
    fit = fit_corun([m.corun() for m in measured], "measured: here")
    assert np.median(np.abs(fit.errors["fitted"])) < 0.02
    assert np.median(np.abs(fit.errors["published"])) < 1e-9
    assert not fit.is_dirty


def test_repetitions_run_in_one_random_order() -> None:
    def calls(seed: int) -> list[tuple[Pair, int, int]]:
        runner = KnownMachine(np.random.default_rng(1))
        measure_overlap(
            pairs(LLM, OverlapPlan())[:2],
            runner,
            ratios=(0.5, 1.0),
            repeats=3,
            rng=np.random.default_rng(seed),
        )
        return runner.calls

    first, again, other = calls(0), calls(0), calls(1)
    assert first == again
    assert first != other
    assert sorted(map(str, first)) == sorted(map(str, other))


def test_a_cpu_is_refused() -> None:
    with pytest.raises(InputError, match="--overlap: found --device cpu; expected cuda"):
        CudaCoRunner(LLM, "cpu")


class Stream:
    """A queue of work on a GPU that has room for all queues at once."""

    def __init__(self, priority: int = 0) -> None:
        self.clock, self.priority = 0.0, priority

    def wait_event(self, event: "Event") -> None:
        self.clock = max(self.clock, event.at)

    def wait_stream(self, other: "Stream") -> None:
        self.clock = max(self.clock, other.clock)


class Event:
    def __init__(self, cuda: "TwoStreamGpu") -> None:
        self._cuda, self.at = cuda, 0.0

    def record(self) -> None:
        self.at = self._cuda.current.clock

    def elapsed_time(self, end: "Event") -> float:
        return 1e3 * (end.at - self.at)


class TwoStreamGpu:
    """torch on a GPU where a GEMM takes 3 ms, attention 2 ms, and streams do not disturb."""

    def __init__(self) -> None:
        self.current = self.default = Stream()
        self.shapes: set[tuple[int, ...]] = set()

    def _launch(self, seconds: float) -> None:
        self.current.clock += seconds

    @contextmanager
    def _on(self, stream: Stream) -> Iterator[None]:
        self.current = stream
        yield
        self.current = self.default

    def _data(self, *shape: int, **_: object) -> object:
        self.shapes.add(shape)
        return SimpleNamespace(zero_=lambda: self._launch(1.0))

    def torch(self) -> Any:
        functional = SimpleNamespace(
            linear=lambda *_: self._launch(3e-3),
            scaled_dot_product_attention=lambda *_, **__: self._launch(2e-3),
        )
        cuda = SimpleNamespace(
            is_available=lambda: True,
            Stream=Stream,
            Event=lambda enable_timing: Event(self),
            stream=self._on,
            current_stream=lambda: self.current,
            synchronize=lambda: None,
        )
        return SimpleNamespace(
            **dict.fromkeys(("float32", "bfloat16", "uint8")),
            cuda=cuda,
            nn=SimpleNamespace(functional=functional),
            randn=self._data,
            empty=self._data,
            inference_mode=nullcontext,
        )


def test_streams_start_together_and_the_last_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = TwoStreamGpu()
    monkeypatch.setitem(sys.modules, "torch", gpu.torch())
    runner = CudaCoRunner(LLM)
    pair = Pair(512, 28672, 4096, 64, 1024)
    assert runner.seconds(pair, 4, 0) == pytest.approx(12e-3)
    assert runner.seconds(pair, 0, 4) == pytest.approx(8e-3)
    assert runner.seconds(pair, 4, 4) == pytest.approx(12e-3)
    assert runner.seconds(pair, 4, 8) == pytest.approx(16e-3)
    weights, keys = (28672, 4096), (64, 8, 1024, 128)
    assert {weights, keys} <= gpu.shapes
    with pytest.raises(InputError, match="a model without MLA"):
        CudaCoRunner(load_llm("deepseek-v3"))
