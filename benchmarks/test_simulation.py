"""Speed of the simulator on trace 1, a scheduler at a time: ``pytest benchmarks``.

Aims, on one core at 400,000 requests: under 4 s a scheduler, at least 50,000 steps/s.
"""

import pytest

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.roofline import RooflineCostModel
from bssim.sim.engine.config import load_preset
from bssim.sim.schedulers.registry import scheduler_names
from bssim.sim.simulate import simulate
from bssim.sim.workload.load import load_workload
from bssim.sim.workload.workload import Workload

NUM_REQUESTS = 40_000


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
