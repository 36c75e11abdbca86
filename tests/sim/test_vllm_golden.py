"""The `vllm` preset takes the steps that vLLM's own scheduler took (recorded; no vLLM needed)."""

import pytest

from tests.conformance.compare import difference, simulated_rows, submitted
from tests.conformance.golden import Case, load

VERSION, CASES = load()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_every_step_equals_vllm(case: Case):
    policy = submitted(case.workload, case.engine, case.order)
    found = difference(simulated_rows(case.workload, case.engine, policy), case.rows)
    if found:
        pytest.fail(found)


def test_the_traces_are_hard_enough():
    rows = [row for case in CASES for row in case.rows]
    assert VERSION == "0.32.0"
    assert len(CASES) >= 36
    assert sum(len(row["preempted"]) for row in rows) > 300
    assert sum(any(row["cached"].values()) for row in rows) > 300
    assert {case.engine.get("async_scheduling", False) for case in CASES} == {True, False}


def test_a_difference_is_named():
    row = {"step": 0, "scheduled": {"r0": 1, "r1": 1}, "preempted": []}
    other = {**row, "scheduled": {"r1": 1, "r0": 1}}
    assert difference([row], [row]) is None
    assert difference([row], [other]) is not None
    assert difference([row], [row, row]) == "bssim took 1 steps, vLLM 2"
