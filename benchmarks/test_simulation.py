"""Speed of the simulator on trace 1, a scheduler at a time: ``pytest benchmarks``.

Aims, on one core at 400,000 requests: under 4 s a scheduler, at least 50,000 steps/s.
"""

import pytest

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.roofline import RooflineCostModel
from bssim.sim.engine import EngineConfig, load_preset
from bssim.sim.schedulers import scheduler_names
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload, load_workload, make_workload

NUM_REQUESTS = 40_000
TURNOVERS = 65_536
"""Steps of `test_cost_per_step` in which one request ends and another one starts."""


@pytest.fixture(scope="module")
def trace1() -> Workload:
    return load_workload("trace1", num_requests=NUM_REQUESTS)


@pytest.fixture(scope="module")
def whole_trace1() -> Workload:
    return load_workload("trace1")


def time_one_run(benchmark, workload, scheduler, preset):
    llm, hardware = load_llm("llama-3-8b"), load_hardware("a100-80gb")
    result = benchmark.pedantic(
        simulate,
        args=(workload,),
        kwargs={
            "scheduler": scheduler,
            "llm": llm,
            "hardware": hardware,
            "engine": load_preset(preset),
            "cost_model": RooflineCostModel(llm, hardware),
        },
        rounds=1,
    )
    wall_s = result.plan_wall_s + result.sim_wall_s
    benchmark.extra_info["steps_per_s"] = round(result.steps / wall_s)
    benchmark.extra_info["times_real_time"] = round(result.makespan_s / wall_s)
    assert len(result.schedule.order) == len(workload)


@pytest.mark.parametrize("preset", ["nanoflow", "vllm"])
@pytest.mark.parametrize("scheduler", scheduler_names())
def test_trace1(benchmark, trace1, scheduler, preset):
    time_one_run(benchmark, trace1, scheduler, preset)


@pytest.mark.parametrize("scheduler", ["dfs", "blendserve"])
def test_whole_trace1(benchmark, whole_trace1, scheduler):
    """Ten times the requests is more than ten times the work where few steps can be skipped."""
    time_one_run(benchmark, whole_trace1, scheduler, "nanoflow")


@pytest.mark.parametrize("running", [256, 1024, 4096, 16_384])
def test_cost_per_step(benchmark, running):
    """The cost of a step does not depend on the number of running requests.

    Requests end one by one, and each makes room for the next one, so no step can be skipped.
    """
    outputs = [*range(1, running + 1), *[running] * TURNOVERS]
    llm, hardware = load_llm("llama-3-8b"), load_hardware("a100-80gb")
    result = benchmark.pedantic(
        simulate,
        args=(make_workload("pool", [1] * len(outputs), outputs),),
        kwargs={
            "scheduler": "fcfs",
            "llm": llm,
            "hardware": hardware,
            "engine": EngineConfig(
                num_gpu_blocks=1 << 40, max_num_seqs=running, max_num_batched_tokens=2 * running
            ),
            "cost_model": RooflineCostModel(llm, hardware),
            "output_lengths": "oracle",
        },
        rounds=3,
    )
    benchmark.extra_info["us_per_step"] = round(1e6 * result.sim_wall_s / result.steps, 2)
    assert result.steps == TURNOVERS + running
