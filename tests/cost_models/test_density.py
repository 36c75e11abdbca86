"""The paper's formulas and the numbers it prints."""

import numpy as np
import pytest

from bssim.cost_models.density import (
    compute_seconds,
    density,
    density_constant,
    density_of_set,
    memory_partition,
    memory_seconds,
    steady_state_requests,
)
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm_config import load_llm

LLM, A100 = load_llm("llama-3-8b"), load_hardware("a100-80gb")


def test_constant_of_llama_3_8b_on_an_a100() -> None:
    # the paper rounds P to 8.03e9
    assert density_constant(LLM, A100) == pytest.approx(800.75, rel=1e-4)


def test_seconds_of_a_request() -> None:
    params = LLM.num_params
    assert compute_seconds(1000, 500, LLM, A100) == pytest.approx(2 * 1500 * params / 312e12)
    quadratic = compute_seconds(1000, 500, LLM, A100, quadratic=True)
    assert quadratic == pytest.approx((2 * 1500 * params + 4e6 * 4096 * 32) / 312e12)
    kv = (1000 * 500 + 500**2 / 2) * 1024 * 32 * 4
    assert memory_seconds(1000, 500, LLM, A100) == pytest.approx(kv / 2.039e12)
    assert memory_seconds(1000, 500, LLM, A100, tp=4) == pytest.approx(kv / 2.039e12 / 4)


def test_density_of_requests_and_sets() -> None:
    p, d = np.array([496.0, 121.0]), np.array([510.0, 16384.0])
    each = 800.778 * (p + d) / (p * d + d**2 / 2)
    assert density(p, d, LLM, A100) == pytest.approx(each, rel=1e-5)
    both = 0.65 * 800.778 * (p + d).sum() / (p * d + d**2 / 2).sum()
    assert density_of_set(p, d, 0.35, LLM, A100) == pytest.approx(both, rel=1e-5)


def test_steady_state() -> None:
    assert steady_state_requests(60e9, 100, 200, LLM) == pytest.approx(60e9 / (200 * 131072))


def test_figure_6_memory_partition() -> None:
    left, right = memory_partition(3.73, 0.096, 1.27)
    assert (60 * left, 60 * right) == pytest.approx((19.38, 40.62), abs=0.01)
    assert memory_partition(0.5, 0.5, 0.5) == (1.0, 0.0)
    assert memory_partition(3.0, 1.0, 0.5) == (0.0, 1.0)
    assert memory_partition(3.0, 1.0, 4.0) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("batch", "gemm_ms", "attention_ms"),
    [(512, 1.038, 1.239), (768, 1.494, 1.859), (1024, 1.916, 2.478)],
)
def test_table_1_is_within_what_peak_constants_can_give(
    batch: int, gemm_ms: float, attention_ms: float
) -> None:
    # per layer, sequence length 1024; the paper's own constants are unpublished
    layer_params = LLM.num_params / LLM.num_layers
    gemm = 1e3 * 2 * batch * layer_params / A100.flops
    attention = 1e3 * batch * 1024 * LLM.kv_bytes_per_token_layer / A100.bandwidth
    assert gemm / gemm_ms == pytest.approx(0.8, abs=0.1)
    assert attention / attention_ms == pytest.approx(0.8, abs=0.1)
