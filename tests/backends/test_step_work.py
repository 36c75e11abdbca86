from dataclasses import fields, replace

import numpy as np
import pytest

from bssim.backends.step_work import step_work
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import StepWork
from bssim.sim.engine import load_preset
from bssim.sim.simulate import simulate
from tests.conformance.compare import HARDWARE, LLM
from tests.conformance.pools import grown


@pytest.mark.parametrize("blocks", [16, 60])
def test_rows_hold_the_work_that_the_simulator_priced(blocks: int):
    pool = grown([(0, 33)], [(k % 2, 3 + 5 * k, 40, 0) for k in range(12)])
    rows: list[dict[str, object]] = []
    result = simulate(
        pool,
        scheduler="fcfs",
        llm=LLM,
        hardware=HARDWARE,
        cost_model=RooflineCostModel(LLM, HARDWARE),
        output_lengths="oracle",
        engine=replace(
            load_preset("vllm"), num_gpu_blocks=blocks, max_num_batched_tokens=48, max_num_seqs=8
        ),
        record_timeline=True,
        on_step=rows.append,
    )
    assert (result.preemptions > 0) == (blocks == 16)
    ours, simulated = (
        step_work(rows, {f"r{k}": int(p) for k, p in enumerate(pool.prompt_tokens)}),
        result.timelines[0].work,
    )
    for f in fields(StepWork):
        np.testing.assert_array_equal(getattr(ours, f.name), getattr(simulated, f.name), f.name)


def test_a_replica_or_segment_starts_with_nothing_running():
    row = {"scheduled": {"r0": 4}, "cached": {"r0": 0}, "preempted": [], "finished": []}
    decode = {"scheduled": {"r0": 1}, "cached": {}, "preempted": [], "finished": []}
    work = step_work(
        [{**row, "segment": 0}, {**decode, "segment": 0}, {**row, "segment": 1}], {"r0": 4}
    )
    assert np.asarray(work.prefill_tokens).tolist() == [4, 0, 4]
    assert np.asarray(work.sampled_tokens).tolist() == [1, 1, 1]
