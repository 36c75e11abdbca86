"""The `trtllm` preset and pools of equal requests, as engine vendors publish them."""

import pytest

from bssim.cost_models.hardware import kv_capacity_tokens, load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.roofline import RooflineCostModel
from bssim.errors import InputError
from bssim.sim.engine import load_preset
from bssim.sim.simulate import simulate
from bssim.sim.workload import load_workload
from bssim.sim.workload.readers import ReaderOptions

LLM, GPU = load_llm("llama-3.1-8b"), load_hardware("a100-80gb")


def run(workload, **settings):
    return simulate(
        workload,
        scheduler="fcfs",
        llm=LLM,
        hardware=GPU,
        engine=load_preset("trtllm").with_settings(settings),
        cost_model=RooflineCostModel(LLM, GPU),
        output_lengths="oracle",
    )


def test_equal_requests_have_the_lengths_of_their_name():
    workload = load_workload("fixed:128x2048", num_requests=7)
    assert workload.prompt_tokens.tolist() == [128] * 7
    assert workload.output_tokens.tolist() == [2048] * 7
    assert workload.sharing_max == 0
    assert load_workload("fixed:128x2048", num_requests=7).digest() == workload.digest()


@pytest.mark.parametrize("name", ["fixed:128", "fixed:0x5", "fixed:5x0", "fixed:128x2048x2"])
def test_a_pool_of_no_lengths_is_refused(name):
    with pytest.raises(InputError, match="workload: found 'fixed:"):
        load_workload(name)


def test_a_pool_of_equal_requests_takes_no_file_options():
    with pytest.raises(InputError, match=r"max_prompt_tokens.*is not a file"):
        load_workload("fixed:128x128", ReaderOptions(max_prompt_tokens=5))


def test_nothing_is_ever_evicted():
    # 90,112 tokens are room for 22 requests at full length, and for 704 at the length of a prompt
    result = run(load_workload("fixed:128x3968", num_requests=100), num_gpu_blocks=1409)
    assert result.preemptions == 0
    assert result.peak_kv_tokens <= 90_112
    # 5 rounds, each as long as an output: a request ends in the step after its prompt's
    assert 5 * 3968 <= result.steps <= 5 * 3968 + 10


def test_kv_takes_its_share_of_what_weights_and_activations_leave():
    workload = load_workload("fixed:64x64", num_requests=8000)
    preset = load_preset("trtllm")
    capacity = kv_capacity_tokens(LLM, GPU, 1, preset.kv_reserve)
    held = run(workload, max_num_seqs=8000).peak_kv_tokens
    assert held <= preset.kv_free_share * capacity
    assert held > 0.98 * preset.kv_free_share * capacity
    with pytest.raises(InputError, match=r"engine.kv_free_share: found 0.0; expected a share"):
        preset.with_settings({"kv_free_share": 0.0})
