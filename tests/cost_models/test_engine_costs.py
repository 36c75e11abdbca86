"""Host time of a step: when the GPU waits for it, and when it hides."""

import numpy as np
import pytest

from bssim.cost_models.engine_costs import EngineCosts, known_engines, load_engine_costs
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.step_cost import StepWork
from bssim.errors import InputError
from bssim.sim.engine.config import load_preset

LLM, A100 = load_llm("llama-3-8b"), load_hardware("a100-80gb")
SLOW = EngineCosts("slow", per_step_s=0.01, per_request_s=1e-4, per_layer_s=1e-3, graph_tokens=64)


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


def test_host_time_is_a_row_of_the_breakdown() -> None:
    one = StepWork(decode_requests=8.0, decode_context_tokens=800.0, sampled_tokens=8.0)
    model = make_cost_model("roofline", LLM, A100, 1, load_engine_costs("vllm-v1"))
    (row,) = (o for o in model.operators(one) if o.name == "host_time")
    assert row.seconds == pytest.approx(float(np.asarray(model.step_cost(one).fixed_s)))
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

    assert decode_s("trtllm-0.13", "auto") == decode_s("vllm-v1", "auto")
    assert 0.4 < decode_s("trtllm-0.13", "fp8") / decode_s("trtllm-0.13", "auto") < 0.6
    assert 0.6 < decode_s("vllm-v1", "fp8") / decode_s("vllm-v1", "auto") < 0.8
