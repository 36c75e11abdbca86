"""Measuring operators with torch."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from bssim.backends.profiling import (
    KERNELS,
    Case,
    Measurement,
    SizePlan,
    cases,
    kernel_bytes,
    measure,
)
from bssim.backends.profiling.operators import check_measured, import_torch, operator
from bssim.cost_models.llm import LLMSpec, Precision, load_llm
from bssim.errors import InputError

HAS_TORCH = importlib.util.find_spec("torch") is not None
TINY = LLMSpec(
    name="tiny",
    hidden_size=64,
    num_layers=2,
    num_attention_heads=4,
    num_kv_heads=2,
    head_dim=16,
    intermediate_size=128,
    vocab_size=256,
    precision=Precision("float32"),
)
EXPERTS = replace(TINY, num_experts=8, experts_per_token=2, moe_intermediate_size=48)
PLAN = SizePlan(
    rows=(1, 64), held_out_rows=(8,), requests=(1, 4), tokens=(16, 64), held_out_tokens=(32,)
)


def test_cases_cover_the_model_s_shapes_and_fit_the_memory() -> None:
    found = cases(TINY, PLAN)
    shapes = {case.sizes[1:] for case in found if case.kind == "gemm"}
    assert shapes == {(128, 64), (64, 64), (256, 64), (64, 128)}
    assert Case("gemm", (8, 128, 64), held_out=True) in found
    assert Case("decode_attention", (4, 64)) in found
    large = load_llm("llama-3-8b")
    assert all(
        case.sizes[1] * case.sizes[2] * 2 <= 2e8
        for case in cases(large, SizePlan(max_bytes=2e8))
        if case.kind == "gemm"
    )


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed")
def test_without_torch_the_error_says_what_to_install() -> None:
    with pytest.raises(InputError, match=r"bssim\[torch\]"):
        measure(TINY, rng=np.random.default_rng(0))


def test_each_kernel_between_matrix_products_is_a_case_that_only_checks() -> None:
    checks = {case.kind for case in cases(TINY, PLAN) if case.kind in KERNELS}
    assert checks == set(KERNELS) - {"router"}
    assert all(case.held_out for case in cases(TINY, PLAN) if case.kind in KERNELS)
    # input and residual are read, both are written; logits become float32, and are read again
    assert kernel_bytes("norm", 8, TINY) == 8 * 4 * 64 * 4
    assert kernel_bytes("sampling", 8, TINY) == 8 * 256 * (4 + 4 + 4)


def test_a_model_with_experts_adds_its_router_and_the_matrices_of_an_expert() -> None:
    found = cases(EXPERTS, PLAN)
    shapes = {case.sizes[1:] for case in found if case.kind == "gemm"}
    assert shapes >= {(8, 64), (96, 64), (64, 48)}
    # scores in the model's type are read, probabilities in float32 are written
    assert kernel_bytes("router", 16, EXPERTS) == 16 * 8 * (4 + 4)
    kinds = {case.kind for case in found}
    assert "router" in kinds
    assert "activation" not in kinds  # no dense MLP, no shared expert


@pytest.mark.torch
def test_every_case_is_measured() -> None:
    seen: list[int] = []
    found = measure(
        TINY,
        plan=PLAN,
        repeats=3,
        rng=np.random.default_rng(0),
        progress=lambda done, total: seen.append(total - done),
    )
    assert [row.case for row in found] == cases(TINY, PLAN)
    assert all(row.seconds > 0 and row.spread >= 0 for row in found)
    assert seen == list(range(3 * len(found)))[::-1]


@pytest.mark.torch
def test_the_router_chooses_experts_and_sorts_the_tokens_by_expert() -> None:
    case = Case("router", (64,), held_out=True)
    weights, order = operator(import_torch("cpu"), case, EXPERTS, "cpu")()
    assert weights.shape == (64, 2)
    assert sorted(order.tolist()) == list(range(128))


def test_the_spread_is_that_of_the_middle_half() -> None:
    row = Measurement(Case("copy", (1,)), (4.0, 2.0, 1.0, 3.0, 100.0))
    assert (row.seconds, row.spread) == (3.0, pytest.approx(1 / 3))


def test_what_cannot_be_measured() -> None:
    with pytest.raises(InputError, match="--device: found 'tpu'"):
        measure(TINY, device="tpu", rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="a model without MLA"):
        check_measured(load_llm("deepseek-v3"))
