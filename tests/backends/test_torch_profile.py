"""Measuring operators with torch."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

from bssim.backends.torch_profile import Case, SizePlan, cases, measure
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.llm_config import load_llm
from bssim.errors import InputError
from bssim.experiments.calibrate_operators import calibrate_operators

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
    dtype_bytes=4,
    kv_dtype_bytes=4,
)
PLAN = SizePlan(
    rows=(1, 64), held_out_rows=(8,), requests=(1, 4), tokens=(16, 64), held_out_tokens=(32,)
)


def test_cases_cover_the_model_s_shapes_and_fit_the_memory() -> None:
    found = cases(TINY, PLAN, max_bytes=2**30)
    shapes = {case.sizes[1:] for case in found if case.kind == "gemm"}
    assert shapes == {(128, 64), (64, 64), (256, 64), (64, 128)}
    assert Case("gemm", (8, 128, 64), held_out=True) in found
    assert Case("decode_attention", (4, 64)) in found
    large = load_llm("llama-3-8b")
    assert all(
        case.sizes[1] * case.sizes[2] * 2 <= 2e8
        for case in cases(large, SizePlan(), max_bytes=2e8)
        if case.kind == "gemm"
    )


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed")
def test_without_torch_the_error_says_what_to_install() -> None:
    with pytest.raises(InputError, match=r"bssim\[torch\]"):
        measure(TINY, rng=np.random.default_rng(0))


@pytest.mark.skipif(not HAS_TORCH, reason="needs torch (extra [torch])")
def test_every_case_is_measured() -> None:
    seen: list[int] = []
    found = measure(
        TINY,
        plan=PLAN,
        repeats=3,
        rng=np.random.default_rng(0),
        progress=lambda done, total: seen.append(total - done),
    )
    assert [row.case for row in found] == cases(TINY, PLAN, 2**30)
    assert all(row.seconds > 0 and row.spread >= 0 for row in found)
    assert seen == list(range(3 * len(found)))[::-1]


@pytest.mark.skipif(not HAS_TORCH, reason="needs torch (extra [torch])")
def test_calibration_writes_a_usable_profile(tmp_path) -> None:
    model = tmp_path / "tiny.yaml"
    fields = {name: getattr(TINY, name) for name in TINY.__slots__ if name not in ("notes",)}
    model.write_text("\n".join(f"{key}: {value!r}" for key, value in fields.items()).lower())
    out = tmp_path / "mine.yaml"
    profile = calibrate_operators(str(model), out, dtype="float32", plan=PLAN, repeats=3)
    assert load_hardware(out).flops == pytest.approx(profile.flops, rel=1e-3)
    assert "float32" in load_hardware(out).sources["gemm"]


def test_what_cannot_be_measured(tmp_path) -> None:
    with pytest.raises(InputError, match="--dtype: found 'int8'"):
        calibrate_operators("llama-3-8b", tmp_path / "x.yaml", dtype="int8")
    if HAS_TORCH:
        with pytest.raises(InputError, match="dense model without MLA"):
            measure(
                replace(TINY, num_experts=4, experts_per_token=1, moe_intermediate_size=8),
                rng=np.random.default_rng(0),
            )
