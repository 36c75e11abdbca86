"""Hardware profiles from measured operators."""

import numpy as np
import pytest

from bssim.cost_models.fitting import OperatorTime, build_profile, operator_time, write_hardware
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.registry import COST_MODELS, check_cost_model, make_cost_model
from bssim.cost_models.step_cost import StepWork
from bssim.errors import InputError

LLM = load_llm("llama-3-8b")
FLOPS, BANDWIDTH = 2e12, 1e11


def machine(spread: float = 0.02) -> list[OperatorTime]:
    """Return measurements of a machine that is a perfect roofline with 10 us a launch."""
    found = []
    sizes: list[tuple[str, tuple[int, ...], bool]] = [("copy", (2**28,), False)]
    for rows in (1, 8, 64, 512, 4096):
        for n, k in ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)):
            sizes.append(("gemm", (rows, n, k), rows == 64))
    for kind in ("prefill_attention", "decode_attention"):
        for requests in (1, 8, 64):
            sizes += [(kind, (requests, n), n == 512) for n in (64, 256, 512, 1024)]
    sizes += [("elementwise", (2**power,), power == 20) for power in range(12, 29)]
    for kind, size, held_out in sizes:
        ideal = operator_time(LLM, kind, size, 1.0, spread, held_out)
        seconds = 1e-5 + max(ideal.flops / FLOPS, ideal.bytes / BANDWIDTH)
        found.append(operator_time(LLM, kind, size, seconds, spread, held_out))
    return found


def test_a_profile_prices_steps_of_the_machine_it_measured(tmp_path) -> None:
    profile = build_profile(machine(), "measured: here")
    assert profile.flops == pytest.approx(FLOPS, rel=0.01)
    assert profile.bandwidth == pytest.approx(BANDWIDTH, rel=0.01)
    assert all(np.median(error) < 0.1 for error in profile.errors.values())
    assert not profile.is_dirty
    path = tmp_path / "deep" / "mine.yaml"
    hardware = write_hardware(
        path, base="cpu", measurement={"device": "here"}, sections=[profile.as_yaml()]
    )
    assert (hardware.name, hardware.memory_bytes) == ("mine", load_hardware("cpu").memory_bytes)
    model = make_cost_model("roofline", LLM, hardware)
    operators = {o.name: o for o in model.operators(StepWork(8.0, 2048.0, 0, 0, 0, 0, 8.0))}
    weights = 2 * (6144 * 4096 + 8 * (6144 + 4096))
    expected = 32 * (1e-5 + weights / BANDWIDTH)
    assert operators["qkv_proj"].seconds == pytest.approx(expected, rel=0.02)
    assert operators["qkv_proj"].provenance.startswith("measured: here")
    moved = 4 * 4096 * 2 * 8  # between two sizes that were measured
    assert operators["norm"].seconds == pytest.approx(65 * (1e-5 + moved / BANDWIDTH), rel=0.1)
    assert operators["norm"].provenance.startswith("measured: here")
    attention = 32 * (1e-5 + 2048 * 4096 / BANDWIDTH)
    assert operators["decode_attention"].seconds == pytest.approx(attention, rel=0.02)


def test_a_dirty_measurement_says_so() -> None:
    profile = build_profile(machine(spread=0.3), "measured: here")
    assert profile.is_dirty
    assert "DIRTY: repetitions differ by 30%" in profile.as_yaml()


def test_a_missing_operator_class() -> None:
    some = [time for time in machine() if time.curve != "decode_attention"]
    with pytest.raises(InputError, match="no measurement of decode_attention"):
        build_profile(some, "measured: here")


@pytest.mark.parametrize("name", ["fitted", "fitted:"])
def test_fitted_needs_its_file(name: str) -> None:
    for use in (check_cost_model, lambda n: make_cost_model(n, LLM, load_hardware("cpu"))):
        with pytest.raises(InputError, match="expected fitted:FILE"):
            use(name)


def test_names_of_cost_models_are_checked(tmp_path) -> None:
    for name in COST_MODELS:
        check_cost_model(name)
    with pytest.raises(InputError, match=r"'roofine' .did you mean 'roofline'"):
        check_cost_model("roofine")
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read: No such file"):
        check_cost_model(f"fitted:{tmp_path / 'none.yaml'}")
