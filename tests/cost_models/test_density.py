"""The paper's formulas and the numbers it prints."""

import numpy as np
import pytest

from bssim.cost_models.density import (
    DensityConstants,
    compute_seconds,
    density_of_sums,
    memory_seconds,
    token_sums,
)
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm

LLM, A100 = load_llm("llama-3-8b"), load_hardware("a100-80gb")
UNIT = DensityConstants.of(LLM, A100)


def test_constant_of_llama_3_8b_on_an_a100() -> None:
    # the paper rounds P to 8.03e9, as the default does
    assert density_of_sums(0.0, 1.0, 1.0, DensityConstants()) == pytest.approx(800.75, rel=1e-5)
    assert density_of_sums(0.0, 1.0, 1.0, UNIT) == pytest.approx(800.75, rel=1e-4)


def test_seconds_of_a_request() -> None:
    computed, read = token_sums(np.array([1000]), np.array([500]))
    assert compute_seconds(computed, UNIT) == pytest.approx(2 * 1500 * LLM.num_params / 312e12)
    kv = (1000 * 500 + 500**2 / 2) * 1024 * 32 * 4
    assert memory_seconds(read, UNIT) == pytest.approx(kv / 2.039e12)


@pytest.mark.parametrize(("tp", "shards"), [(4, 4), (8, 8), (16, 8)])
def test_gpus_beyond_the_kv_heads_read_no_less(tp: int, shards: int) -> None:
    several = DensityConstants.of(LLM, A100, tp)
    assert compute_seconds(1e6, several) == pytest.approx(compute_seconds(1e6, UNIT) / tp)
    assert memory_seconds(1e6, several) == pytest.approx(memory_seconds(1e6, UNIT) / shards)


def test_density_of_sums() -> None:
    p, d = np.array([496, 121]), np.array([510, 16384])
    computed, read = token_sums(p, d)
    both = 0.65 * 800.778 * (p + d).sum() / (p * d + d**2 / 2).sum()
    found = density_of_sums(0.35, float(computed.sum()), float(read.sum()), UNIT)
    assert found == pytest.approx(both, rel=1e-5)


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
