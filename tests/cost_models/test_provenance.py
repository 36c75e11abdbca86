"""Every operator that a step of a shipped model runs has a row, and a row says where it is from."""

import pytest

from bssim.cost_models.hardware import known_hardware, load_hardware
from bssim.cost_models.llm import known_llms, load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.step_cost import StepWork, attention_pairs
from bssim.sim.engine import load_preset

GPUS = tuple(load_hardware(name) for name in known_hardware() if name != "cpu")
KINDS = ("fitted to measurements: ", "assumed", "spec sheet: ", "as ", "vllm-v1: measured")
"""How a source begins; ``as`` names the GPU whose curves stand in, with their source."""
WORK = StepWork(64.0, 64e3, 2.0, 1024.0, 0.0, 2 * attention_pairs(512), 66.0)


@pytest.mark.parametrize("name", known_llms())
def test_every_operator_of_every_shipped_model_has_a_provenance_on_every_gpu(name: str) -> None:
    llm, engine = load_llm(name), load_preset("vllm").costs()
    expected = {
        *("embedding", "norm", "kv_write", "qkv_proj", "o_proj", "lm_head", "sampling"),
        *("prefill_attention", "decode_attention", "all_reduce", "logits_gather", "host_time"),
        *(("router", "experts") if llm.is_moe else ("mlp", "activation")),
    }
    for gpu in GPUS:
        rows = make_cost_model("roofline", llm, gpu, 2, engine).operators(WORK)
        assert expected <= {row.name for row in rows}
        for row in rows:
            assert row.seconds > 0, (gpu.name, row.name)
            assert row.provenance.startswith(KINDS), (gpu.name, row.name, row.provenance)
