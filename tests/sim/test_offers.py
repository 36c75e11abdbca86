"""Policies that offer several requests at once admit the same ones as when asked one by one."""

from dataclasses import replace

import numpy as np
import pytest

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.roofline import RooflineCostModel
from bssim.experiments.result_pages.reproduction.intercepted import Calls, InterceptedScheduler
from bssim.sim.engine import AdmissionPolicy, load_preset
from bssim.sim.schedulers import Scheduler, make_scheduler
from bssim.sim.schedulers.ratio import Ratio
from bssim.sim.schedulers.ratio.options import RatioOptions
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload, load_workload

LLM, HARDWARE = load_llm("llama-3-8b"), load_hardware("a100-80gb")
SCHEDULERS: dict[str, Scheduler] = {
    name: make_scheduler(name) for name in ("dfs", "blendserve", "blendserve_adaptive")
} | {"ratio": Ratio(options=RatioOptions(small_pools=False))}


@pytest.fixture(scope="module")
def pool() -> Workload:
    return load_workload("trace4", num_requests=1500)


def one_by_one(policy: AdmissionPolicy) -> Calls:
    """Offer what `peek` returns, as a policy does that knows nothing of offers."""
    return {
        "offer": lambda: AdmissionPolicy.offer(policy),
        "all_admitted": lambda *noted: AdmissionPolicy.all_admitted(policy, *noted),
    }


@pytest.mark.parametrize("lengths", ["sampled", "oracle"])
@pytest.mark.parametrize("settings", ["nanoflow", "few blocks", "small chunks"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_one_by_one_and_together_are_the_same(
    pool: Workload, name: str, settings: str, lengths: str
) -> None:
    engine = {
        "nanoflow": load_preset("nanoflow"),
        "few blocks": replace(load_preset("nanoflow"), num_gpu_blocks=45_000),
        "small chunks": replace(
            load_preset("vllm"), long_prefill_token_threshold=100, num_gpu_blocks=4_000
        ),
    }[settings]
    results = [
        simulate(
            pool,
            scheduler=scheduler,
            llm=LLM,
            hardware=HARDWARE,
            engine=engine,
            cost_model=RooflineCostModel(LLM, HARDWARE),
            output_lengths=lengths,
        )
        for scheduler in (
            SCHEDULERS[name],
            InterceptedScheduler(SCHEDULERS[name], one_by_one),
        )
    ]
    together, single = results
    assert np.array_equal(together.schedule.order, single.schedule.order)
    assert np.array_equal(together.finish_s, single.finish_s)
    assert together.steps == single.steps
    assert together.preemptions == single.preemptions
