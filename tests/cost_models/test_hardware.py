"""Hardware specs, efficiency curves and KV capacity."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from bssim.cost_models.hardware import (
    CURVES,
    FIXED,
    QUANTITIES,
    EfficiencyCurve,
    known_hardware,
    kv_capacity_tokens,
    load_hardware,
)
from bssim.cost_models.llm import load_llm
from bssim.errors import InputError


def test_the_named_devices_are_shipped() -> None:
    assert {
        "a100-40gb",
        "a100-80gb",
        "h100-sxm",
        "gh200",
        "h100-pcie",
        "h200",
        "b200",
        "l40s",
        "mi300x",
        "cpu",
    } <= set(known_hardware())


@pytest.mark.parametrize("name", known_hardware())
def test_every_number_has_a_source(name: str) -> None:
    hardware = load_hardware(name)
    for key in (*QUANTITIES, *CURVES, *(f"fixed_s.{key}" for key in FIXED)):
        assert hardware.sources[key].strip(), key


def test_a_format_without_a_peak_is_refused_by_name() -> None:
    a100 = load_hardware("a100-80gb")
    assert a100.peak("bf16") == a100.peak("fp16") == a100.peak("w4a16") == a100.flops
    assert a100.peak("int8") == 2 * a100.flops
    assert a100.peak("fp32") == 19.5e12
    with pytest.raises(InputError, match="a100-80gb: found no peak for fp8 GEMMs; expected"):
        a100.peak("fp8")
    assert load_hardware("h100-sxm").peak("fp8") == pytest.approx(2 * 989.4e12, rel=1e-3)


def test_a100_peaks_are_the_papers() -> None:
    a100 = load_hardware("a100-80gb")
    assert (a100.flops, a100.bandwidth) == (312e12, 2.039e12)


def test_kv_capacity_closed_form() -> None:
    llm, a100 = load_llm("llama-3-8b"), load_hardware("a100-80gb")
    expected = (80 * 2**30 * 0.9 - 8_030_261_248 * 2) // 131072
    assert kv_capacity_tokens(llm, a100) == expected
    big, h100 = load_llm("llama-3-70b"), load_hardware("h100-sxm")
    usable = h100.memory_bytes * 0.8 - big.weight_bytes / 8
    assert kv_capacity_tokens(big, h100, tp=8, kv_reserve=0.2) == usable // (327680 / 8)
    # 16 GPUs share 8 KV heads: each holds one head, twice over
    assert kv_capacity_tokens(big, h100, tp=16, kv_reserve=0.2) == (
        h100.memory_bytes * 0.8 - big.weight_bytes / 16
    ) // (327680 / 8)


def test_a_model_that_does_not_fit_is_an_error_with_the_numbers() -> None:
    with pytest.raises(InputError, match=r"141\.1 GB per GPU.*77\.3 GB of 85\.9 GB"):
        kv_capacity_tokens(load_llm("llama-3-70b"), load_hardware("a100-80gb"))
    with pytest.raises(InputError, match="tp: found 3"):
        kv_capacity_tokens(load_llm("llama-3-70b"), load_hardware("a100-80gb"), tp=3)
    with pytest.raises(InputError, match="kv_reserve"):
        kv_capacity_tokens(load_llm("llama-3-8b"), load_hardware("a100-80gb"), kv_reserve=1.0)


def test_a_file_without_a_name_is_called_by_its_stem_not_by_its_base(tmp_path: Path) -> None:
    path = tmp_path / "slow-host.yaml"
    path.write_text("base: a100-80gb\n")
    assert load_hardware(path).name == "slow-host"
    path.write_text("base: h100-pcie\nname: given\n")
    assert load_hardware(path).name == "given"


def test_a_curve_is_log_log_linear_and_flat_outside() -> None:
    curve = EfficiencyCurve.build("t", {"rows": [10, 1000]}, [0.09, 0.81], "s")
    assert curve.at(rows=np.array([1.0, 10.0, 100.0, 1000.0, 1e6])) == pytest.approx(
        [0.09, 0.09, 0.27, 0.81, 0.81]
    )
    surface = EfficiencyCurve.build(
        "t", {"n": [1, 16], "rows": [1, 100]}, [[0.1, 0.4], [0.2, 0.8]], "s"
    )
    assert surface.at(rows=10.0, n=4.0) == pytest.approx(0.2 * 2**0.5)
    assert surface.at(rows=1e9, n=1e9) == pytest.approx(0.8)
    assert surface.slice(n=4.0).at(rows=10.0) == pytest.approx(0.2 * 2**0.5)
    assert surface.slice(k=3.0) is surface
    assert surface.best == 0.8
    column = EfficiencyCurve.build("t", {"n": [1, 16], "rows": [1]}, [[0.1], [0.4]], "s")
    assert column.at(rows=np.array([1.0, 50.0]), n=np.array([4.0, 16.0])) == pytest.approx(
        [0.2, 0.4]
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bandwith", 1, "did you mean 'bandwidth'.*one of: bandwidth, base, corun"),
        ("flops", {"value": "fast", "source": "x"}, r"mine\.yaml:4: flops\.value: found 'fast'"),
        ("flops", {"value": -1, "source": "x"}, "flops.value: found -1"),
        ("flops", None, "flops: found None"),
        ("flops", {"value": 10**400, "source": "x"}, r"flops\.value: found 1000"),
        (
            "corun",
            {"attention": [[10**400, 1]], "network": [], "source": "x"},
            r"corun\.attention\[0\]",
        ),
        ("efficiency", {"gemm": {"rows": [1], "values": [10**400], "source": ""}}, "gemm"),
        ("base", "x" * 300, r"mine\.yaml:1: base: found"),
        ("efficiency", {"gemm": {"rows": [2, 1], "values": [1, 1], "source": ""}}, r"\.rows:"),
        ("efficiency", {"gemm": {"rows": [1], "values": [7], "source": "x"}}, "found 7"),
        ("efficiency", {"gemm": {"rows": [1]}}, "efficiency.gemm: 'values' is missing"),
        (
            "efficiency",
            {"gemm": {"values": [1]}},
            "efficiency.gemm: found no sizes; expected",
        ),
        ("efficiency", {"gemm": {"row": [1]}}, "did you mean 'rows'"),
        ("efficiency", {"gemm": {"rows": [1], "values": [1, 1], "source": ""}}, "shape"),
        ("efficiency", {"gemm": {"rows": "all", "values": [1], "source": ""}}, "lists of numbers"),
        ("corun", {"attention": 3}, r"corun\.attention: found 3; expected a valid list"),
        ("base", "a100", r"mine\.yaml:1: base: found 'a100'"),
        ("flops", {"value": True, "source": "x"}, r"flops\.value: found True"),
        ("flops", True, "flops: found True"),
        ("flops", "fast", "flops: found 'fast'; expected a valid number"),
        ("memory_bytes", 0, "memory_bytes: found 0; expected greater than 0"),
        ("link_latency_s", float("inf"), "link_latency_s: found inf; expected a finite number"),
        ("flops_format", "fp7", "flops_format: found 'fp7'; expected 'bf16', 'fp16'"),
        ("expanded_formats", {"fp4": "w2a16"}, "expanded_formats.fp4: found 'w2a16'; expected"),
        ("peak_flops", [1], r"peak_flops: found \[1\]; expected a mapping of: bf16, fp16"),
        (
            "efficiency",
            {"gem": {}},
            "efficiency.gem: unknown key: found 'gem' .did you mean",
        ),
        ("fixed_s", {"gem": {}}, "fixed_s.gem: unknown key: found 'gem' .did you mean 'gemm'"),
        (
            "efficiency",
            {"gemm": {"rows": [float("nan")], "values": [1], "source": ""}},
            r"\.rows: found .nan.; expected increasing positive",
        ),
    ],
)
def test_bad_hardware_files(key: str, value, message: str, tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "a100-80gb", key: value}))
    with pytest.raises(InputError, match=message) as error:
        load_hardware(path)
    assert "mine.yaml" in str(error.value)


def test_numbers_may_stand_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: h100-sxm\nmemory_bytes: 96e9\nbandwidth: {value: 4e12}\nfixed_s: {step: 0}\n"
        "peak_flops: {fp8: 2e15}\nexpanded_formats: {fp4: w4a16}\n"
    )
    mine, base = load_hardware(path), load_hardware("h100-sxm")
    assert (mine.memory_bytes, mine.bandwidth, mine.fixed_s["step"]) == (96e9, 4e12, 0.0)
    assert (mine.peak_flops["fp8"], mine.expanded_formats["fp4"]) == (2e15, "w4a16")
    for key in ("memory_bytes", "bandwidth", "fixed_s.step", "peak_flops.fp8"):
        assert mine.sources[key] == "given without a source"
    assert mine.sources["flops"] == f"as h100-sxm: {base.sources['flops']}"
    path.write_text("base: h100-sxm\nbandwidth: 1\nbandwidth: 2\n")
    with pytest.raises(InputError, match="'bandwidth' is given twice; first on line 2"):
        load_hardware(path)


def test_a_file_without_a_base_needs_every_field(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("memory_bytes: 96e9\n")
    with pytest.raises(InputError, match=r"mine\.yaml: 'bandwidth' is missing \(and \d more"):
        load_hardware(path)


def test_a_profile_builds_on_a_shipped_spec(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "base": "a100-80gb",
                "name": "mine",
                "fixed_s": {"step": {"value": 0.002, "source": "measured"}},
                "corun": {"attention": [[0.5, 0.5]], "network": [], "source": "measured"},
            }
        )
    )
    mine, base = load_hardware(path), load_hardware("a100-80gb")
    assert (mine.name, mine.flops) == ("mine", base.flops)
    assert mine.fixed_s["step"] == 0.002
    assert mine.fixed_s["gemm"] == base.fixed_s["gemm"]
    assert mine.corun is not None
    assert mine.corun.attention == ((0.5, 0.5),)


def test_unknown_device() -> None:
    with pytest.raises(InputError, match="did you mean 'a100-80gb'"):
        load_hardware("a100-80g")
