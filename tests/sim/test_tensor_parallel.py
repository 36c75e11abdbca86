"""All-reduces of tensor parallelism: priced in every step, exposed or overlapped by the engine."""

import pytest

from bssim.cost_models.paper import PaperCostModel
from bssim.sim.engine import load_preset
from bssim.sim.result import SimulationResult
from bssim.sim.simulate import simulate
from tests.sim.harness import HARDWARE, LLM, unshared

TP = 4
ROWS = 64 * (200 + 49)
"""Tokens computed: 64 prompts of 200, then 49 tokens each."""


def served(preset: str, tp: int = TP) -> SimulationResult:
    return simulate(
        unshared([200] * 64, [50] * 64),
        scheduler="fcfs",
        llm=LLM,
        hardware=HARDWARE,
        engine=load_preset(preset).with_settings({"batch_multiple": 1}),
        cost_model=PaperCostModel(LLM, HARDWARE, tp=tp),
        output_lengths="oracle",
        tp=tp,
    )


@pytest.mark.parametrize("preset", ["vllm", "sglang", "nanoflow"])
def test_every_token_is_reduced_twice_a_layer(preset: str) -> None:
    moved = 2 * (TP - 1) / TP * LLM.hidden_size * LLM.dtype_bytes
    want = ROWS * 2 * LLM.num_layers * moved / HARDWARE.link_bandwidth
    assert served(preset).communication_s == pytest.approx(want)
    assert served(preset, tp=1).communication_s == 0


@pytest.mark.parametrize("preset", ["vllm", "sglang"])
def test_sequential_engines_expose_them(preset: str) -> None:
    result = served(preset)
    parts = result.compute_s + result.memory_s + result.communication_s
    assert result.makespan_s == pytest.approx(parts)


def test_nanoflow_hides_part_of_them() -> None:
    result = served("nanoflow")
    parts = result.compute_s + result.memory_s + result.communication_s
    assert result.compute_s < result.makespan_s < parts
    assert result.makespan_s >= result.bounds.practical_optimum_s


def test_the_sglang_preset_is_a_radix_cache_on_a_sequential_engine() -> None:
    sglang, vllm = load_preset("sglang"), load_preset("vllm")
    assert (sglang.block_size, sglang.overlap, sglang.enable_prefix_caching) == (
        1,
        "sequential",
        True,
    )
    assert sglang.prefix_retention == "lru"
    assert sglang.max_num_batched_tokens == vllm.max_num_batched_tokens
    # token-level hits: at least those of whole blocks
    assert served("sglang").steps <= served("vllm").steps
