"""Host time of a step: when the GPU waits for it, and when it hides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bssim
from bssim.cost_models import engine_costs
from bssim.cost_models.engine_costs import (
    EngineCosts,
    engine_file,
    known_engines,
    load_engine_costs,
)
from bssim.cost_models.hardware import load_hardware, with_kernels
from bssim.cost_models.llm import load_llm
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import StepWork, attention_pairs
from bssim.errors import InputError
from bssim.sim.engine import load_preset

LLM, A100 = load_llm("llama-3-8b"), load_hardware("a100-80gb")
SLOW = EngineCosts("slow", per_step_s=0.01, per_request_s=1e-4, per_layer_s=1e-3, graph_tokens=64)
ONE = StepWork(decode_requests=8.0, decode_context_tokens=800.0, sampled_tokens=8.0)


def decode(*requests: float) -> StepWork:
    batch = np.array(requests)
    return StepWork(decode_requests=batch, decode_context_tokens=batch * 100, sampled_tokens=batch)


@pytest.mark.parametrize("overlap", ["sequential", "perfect", "frontier", "gamma:0.2", "pnorm:4"])
def test_the_gpu_waits_for_the_host_unless_scheduling_is_asynchronous(overlap: str) -> None:
    work, rule = decode(0, 1, 64), parse_overlap(overlap)
    bare = rule.step_seconds(make_cost_model("roofline", LLM, A100).step_cost(work))
    waited = rule.step_seconds(make_cost_model("roofline", LLM, A100, 1, SLOW).step_cost(work))
    assert waited == pytest.approx(bare + np.array([0.0, 0.0101, 0.0164]))
    hidden = EngineCosts("slow", 0.01, 1e-4, async_scheduling=True)
    beside = rule.step_seconds(make_cost_model("roofline", LLM, A100, 1, hidden).step_cost(work))
    assert beside == pytest.approx(np.maximum(bare, np.array([0.0, 0.0101, 0.0164])))


def test_launches_bound_steps_that_no_graph_covers() -> None:
    launches = LLM.num_layers * 1e-3
    assert SLOW.beside_s(decode(64, 65), LLM.num_layers).tolist() == [0.0, launches]
    eager = load_engine_costs("vllm-v1", enforce_eager=True)
    assert eager.beside_s(decode(1), LLM.num_layers) > 0
    assert load_engine_costs("vllm-v1").beside_s(decode(1), LLM.num_layers) == 0


def test_presets_name_their_engine_and_settings_reach_the_costs() -> None:
    engine = load_preset("vllm").with_settings(
        {"async_scheduling": True, "disable_custom_all_reduce": True}
    )
    costs = engine.costs()
    assert (costs.name, costs.async_scheduling, costs.all_reduce) == ("vllm-v1", True, "nccl")
    for name in known_engines():
        assert load_engine_costs(name).name == name
    with pytest.raises(InputError, match=r"engine\.version"):
        load_preset("vllm").with_settings({"version": "vllm-9"}).costs()


def test_a_run_says_that_vllm_on_cuda_would_schedule_asynchronously() -> None:
    pool = bssim.load_workload("trace1", num_requests=20)

    def noted(preset: str, hardware: str = "a100-80gb", **settings: object) -> bool:
        engine = load_preset(preset).with_settings(settings)
        run = bssim.simulate(pool, "fcfs", engine=engine, hardware=hardware)
        return any("synchronous" in note for note in run.notes)

    assert noted("vllm")
    assert not noted("vllm", async_scheduling=True)
    assert not noted("vllm", version="none")
    assert not noted("sglang")
    assert not noted("vllm", "cpu")


def test_host_time_is_a_row_of_the_breakdown() -> None:
    model = make_cost_model("roofline", LLM, A100, 1, load_engine_costs("vllm-v1"))
    (row,) = (o for o in model.operators(ONE) if o.name == "host_time")
    assert row.seconds == pytest.approx(float(np.asarray(model.step_cost(ONE).fixed_s)))
    assert row.provenance.startswith("vllm-v1: ")


def test_trtllm_reads_an_fp8_cache_with_its_own_kernel() -> None:
    h100 = load_hardware("h100-sxm")
    work = StepWork(decode_requests=64.0, decode_context_tokens=64e3, sampled_tokens=64.0)

    def decode_s(version: str, kv: str) -> float:
        model = make_cost_model(
            "roofline",
            load_llm("llama-3-8b", kv_cache_dtype=kv),
            h100,
            1,
            load_engine_costs(version),
        )
        return float(np.asarray(model.step_cost(work).memory_s))

    assert decode_s("trtllm-0.13", "auto") == pytest.approx(decode_s("vllm-v1", "auto"), rel=0.2)
    assert 0.4 < decode_s("trtllm-0.13", "fp8") / decode_s("trtllm-0.13", "auto") < 0.6
    assert 0.6 < decode_s("vllm-v1", "fp8") / decode_s("vllm-v1", "auto") < 0.8


@pytest.mark.parametrize("cost_model", ["roofline", "silicon"])
def test_trtllm_multiplies_prompts_in_fp8_if_weights_and_cache_are_fp8(cost_model: str) -> None:
    pairs = 4 * attention_pairs(8192)
    work = StepWork(prefill_requests=4.0, prefill_tokens=32768.0, prefill_attention_pairs=pairs)

    def attention(version: str, **precision: str) -> tuple[float, str]:
        engine = load_engine_costs(version)
        llm, h100 = load_llm("llama-3-8b", **precision), load_hardware("h100-sxm")
        model = make_cost_model(cost_model, llm, h100, 1, engine)
        assert model.ideal_cost(work).compute_s <= model.step_cost(work).compute_s
        (row,) = (o for o in model.operators(work) if o.name == "prefill_attention")
        return row.seconds, row.provenance

    fp8 = {"quantization": "fp8", "kv_cache_dtype": "fp8"}
    wide, source = attention("trtllm-1.0", quantization="fp8")
    narrow, source_fp8 = attention("trtllm-1.0", **fp8)
    assert 0.6 < narrow / wide < 0.9
    assert "fp8 attention over prompts" in source_fp8
    assert "fp8 attention" not in source
    assert attention("vllm-v1", **fp8) == attention("vllm-v1", quantization="fp8")


@pytest.mark.parametrize("cost_model", ["roofline", "silicon"])
def test_an_engine_brings_its_kernels_unless_the_curve_is_yours(cost_model: str, tmp_path) -> None:
    engine = load_preset("trtllm").costs()
    sources = {
        row.name: row.provenance
        for row in make_cost_model(cost_model, LLM, A100, 1, engine).operators(ONE)
    }
    assert "trtllm 1.0.0" in sources["mlp"]
    assert "trtllm 1.0.0" in sources["decode_attention"]
    mine = replace(A100.gemm, source="measured here")
    model = RooflineCostModel(LLM, replace(A100, gemm=mine), 1, engine)
    provenance = {row.name: row.provenance for row in model.operators(ONE)}
    assert provenance["mlp"] == "measured here"
    assert "trtllm" in provenance["decode_attention"]


def test_a_device_without_kernels_of_its_own_takes_those_of_its_base() -> None:
    gh200 = with_kernels(load_hardware("gh200"), "trtllm")
    assert gh200.gemm.source == with_kernels(load_hardware("h100-sxm"), "trtllm").gemm.source
    assert gh200.bandwidth == 4.0e12
    other = replace(A100, name="my-gpu")
    assert with_kernels(other, "trtllm") is other


def test_your_own_file_of_host_constants(tmp_path) -> None:
    shipped = engine_file("vllm-v1")
    assert shipped is not None
    path = tmp_path / "mine.yaml"
    text = shipped.read_text().replace("vllm-v1", "mine").replace("1.6e-5", "8.0e-6")
    path.write_text(text)
    costs = load_preset("vllm").with_settings({"version": str(path)}).costs()
    assert (costs.name, costs.per_request_s) == ("mine", 8e-6)
    path.write_text(text.replace("all_reduce: vllm", "all_reduce: vllm\nkernels: mlx"))
    with pytest.raises(InputError, match="kernels: found 'mlx'"):
        load_engine_costs(str(path))
    for wrong, message in (
        (text.replace("graph_tokens: 512", "graph_tokens: many"), "graph_tokens: found 'many'"),
        (text.replace("graph_tokens", "graph_token"), "graph_token.*expected.*graph_tokens"),
        (text.replace("per_step: {value: 1.4e-3", "per_step: {value: -1"), r"per_step\.value"),
    ):
        path.write_text(wrong)
        with pytest.raises(InputError, match=rf"mine\.yaml:\d+: .*{message}"):
            load_engine_costs(str(path))
    path.write_text("[]")
    with pytest.raises(InputError, match=r"mine\.yaml"):
        load_engine_costs(str(path))


def test_vllm_s_host_time_is_the_one_that_was_measured() -> None:
    folder = Path(engine_costs.__file__).parents[1] / "experiments" / "measured" / "vllm-host"
    costs = load_engine_costs("vllm-v1")
    for name in ("tokens", "text"):
        table = pd.read_csv(folder / f"{name}.csv")
        engine_process = table["total"] - table["process_outputs"]
        per_request, per_step = np.polyfit(table["requests"], engine_process, 1)
        assert costs.per_step_s == pytest.approx(per_step, rel=0.1)
        assert costs.per_request_s == pytest.approx(per_request, rel=0.1)
