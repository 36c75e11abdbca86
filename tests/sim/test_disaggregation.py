"""Prefill/decode disaggregation: what must hold, what a formula gives, and one run literally."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.cost_models.paper import PaperCostModel
from bssim.errors import InputError
from bssim.sim.cluster import Disaggregation, KVLink
from bssim.sim.result import SimulationResult
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload
from tests.sim.harness import HARDWARE, LLM, engine, pool, run, unshared

TOKEN_S = 2 * LLM.num_active_params / HARDWARE.flops
WEIGHTS_S = LLM.weight_bytes / HARDWARE.bandwidth
KV_S = LLM.kv_bytes_per_token / HARDWARE.bandwidth
SEND_S = LLM.kv_bytes_per_token / HARDWARE.link_bandwidth
"""Seconds to send the KV of one token."""


def split_run(
    workload: Workload, split: str, scheduler: str = "fcfs", **options: Any
) -> SimulationResult:
    return run(workload, scheduler, disaggregation=split, **options)


def prefill_s(tokens: int) -> float:
    return max(tokens * TOKEN_S, WEIGHTS_S)


def decode_s(batch: int, context: int) -> float:
    return max(batch * TOKEN_S, WEIGHTS_S) + context * KV_S


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 500), st.integers(1, 100), st.sampled_from([1, 16]))
def test_one_request_is_prefill_transfer_and_decode(p: int, d: int, block_size: int) -> None:
    result = split_run(
        unshared([p], [d]), "1P1D", kv=1000, max_num_batched_tokens=64, block_size=block_size
    )
    chunks = [64] * (p // 64) + ([p % 64] if p % 64 else [])
    want = sum(prefill_s(c) for c in chunks)
    if d > 1:
        want += p * SEND_S + sum(decode_s(1, p + k) for k in range(d - 1))
    assert result.makespan_s == pytest.approx(want)
    assert result.finish_s.tolist() == [result.makespan_s]
    assert len(result.transfers) == (d > 1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 500), st.integers(1, 100))
def test_one_request_over_an_infinite_link_takes_as_long_as_colocated(p: int, d: int) -> None:
    hardware = replace(HARDWARE, link_bandwidth=float("inf"), link_latency_s=0.0)
    both = [
        simulate(
            unshared([p], [d]),
            scheduler="fcfs",
            llm=LLM,
            hardware=hardware,
            engine=engine(kv=1000),
            cost_model=PaperCostModel(LLM, HARDWARE),
            disaggregation=split,
        )
        for split in (None, "1P1D")
    ]
    assert both[1].makespan_s == pytest.approx(both[0].makespan_s)
    assert both[1].compute_s == pytest.approx(both[0].compute_s)
    assert both[1].memory_s == pytest.approx(both[0].memory_s)


def events(result: SimulationResult) -> list[tuple[float, str]]:
    """Return what happened, by time in units of a weight load."""
    found = []
    for r, sender, receiver, tokens, prompt_s, start_s, end_s in result.transfers:
        found.append((prompt_s, f"{sender} has prompt {r}"))
        found.append((start_s, f"{sender} sends {tokens} of {r} to {receiver}"))
        found.append((end_s, f"{receiver} has {r}"))
    found += [(s, f"{r} done") for r, s in enumerate(result.finish_s.tolist())]
    return sorted((round(s / WEIGHTS_S, 2), what) for s, what in found)


def test_a_run_as_its_events() -> None:
    """Steps take a weight load; sending a token takes a tenth of one; KV reads take nothing."""
    slow = replace(HARDWARE, link_bandwidth=LLM.kv_bytes_per_token / (0.1 * WEIGHTS_S))
    result = simulate(
        unshared([4, 4, 20, 4], [3, 2, 3, 1]),
        scheduler="fcfs",
        llm=LLM,
        hardware=slow,
        engine=engine(kv=30, max_num_batched_tokens=8, max_num_seqs=8),
        cost_model=PaperCostModel(LLM, slow),
        disaggregation="1P1D",
    )
    assert events(result) == [
        (1.0, "0 has prompt 0"),
        (1.0, "0 has prompt 1"),
        (1.0, "0 sends 4 of 0 to 1"),
        (1.4, "0 sends 4 of 1 to 1"),
        (1.4, "1 has 0"),
        (1.8, "1 has 1"),
        (2.8, "1 done"),
        (3.8, "0 done"),
        (4.0, "0 has prompt 2"),
        (4.0, "0 sends 20 of 2 to 1"),
        (4.0, "3 done"),
        (6.0, "1 has 2"),
        (8.0, "2 done"),
    ]


@st.composite
def small_pools(draw: st.DrawFn) -> Workload:
    n = draw(st.integers(1, 25))
    prompts = [
        draw(st.text("ab", min_size=1, max_size=12)) + "xyz"[: draw(st.integers(0, 3))]
        for _ in range(n)
    ]
    return pool(prompts, draw(st.lists(st.integers(1, 20), min_size=n, max_size=n)))


@settings(max_examples=150, deadline=None)
@given(
    small_pools(),
    st.sampled_from(["1P1D", "1P2D", "2P1D", "3P2D"]),
    st.sampled_from(["fcfs", "dfs", "random"]),
    st.integers(34, 90),
    st.sampled_from([1, 4]),
    st.sampled_from([4, 16]),
    st.booleans(),
    st.sampled_from([1e9, 1e12]),
)
def test_invariants(
    workload: Workload,
    text: str,
    scheduler: str,
    kv: int,
    block_size: int,
    budget: int,
    caching: bool,
    bandwidth: float,
) -> None:
    split = Disaggregation.parse(text)
    hardware = replace(HARDWARE, link_bandwidth=bandwidth)
    config = engine(
        kv=kv // block_size + 1,
        block_size=block_size,
        max_num_batched_tokens=budget,
        max_num_seqs=4,
        enable_prefix_caching=caching,
    )
    result = simulate(
        workload,
        scheduler=scheduler,
        llm=LLM,
        hardware=hardware,
        engine=config,
        cost_model=PaperCostModel(LLM, hardware),
        disaggregation=text,
        record_timeline=True,
    )
    n, p, d = len(workload), workload.prompt_tokens, workload.output_tokens
    senders = dict(zip(result.schedule.order, result.schedule.replica, strict=True))
    assert sorted(result.schedule.order.tolist()) == list(range(n))
    assert set(senders.values()) <= set(range(split.prefill))

    sent = {t.request: t for t in result.transfers}
    assert sorted(sent) == np.flatnonzero(d > 1).tolist()
    assert len(sent) == len(result.transfers)
    link = KVLink.of(LLM, hardware, 1)
    for t in result.transfers:
        assert t.sender == senders[t.request]
        assert split.prefill <= t.receiver < split.replicas
        assert t.prompt_s <= t.start_s <= t.end_s
        assert t.end_s - t.start_s == pytest.approx(link.seconds(t.tokens), abs=1e-12)
        assert t.tokens <= p[t.request]
        assert caching or t.tokens == p[t.request]
        # no token before the KV is there: d - 1 steps of at least a weight load each
        assert result.finish_s[t.request] >= t.end_s + (d[t.request] - 1) * WEIGHTS_S - 1e-9
    for one in ("sender", "receiver"):
        for k in range(split.replicas):
            mine = sorted((t.start_s, t.end_s) for t in sent.values() if getattr(t, one) == k)
            assert all(a[1] <= b[0] for a, b in pairwise(mine))

    prefill, decode = (
        [t for t in result.timelines[: split.prefill] if len(t.step_s)],
        [t for t in result.timelines[split.prefill :] if len(t.step_s)],
    )
    computed = sum(t.work.prefill_tokens.sum() + t.work.decode_requests.sum() for t in decode)
    prompts = sum(t.work.prefill_tokens.sum() for t in prefill)
    assert sum(t.work.decode_requests.sum() for t in prefill) == 0
    assert prompts + computed == (p + d - 1).sum() - result.cached_tokens + result.recomputed_tokens
    assert sum(t.work.sampled_tokens.sum() for t in (*prefill, *decode)) == d.sum()
    for t in (*prefill, *decode):
        assert t.kv_tokens.max() <= kv // block_size * block_size + block_size
        assert t.start_s is not None
        assert np.all(t.start_s[1:] >= (t.start_s + t.step_s)[:-1] - 1e-12)
    assert result.makespan_s == result.finish_s.max()
    assert result.makespan_s >= result.bounds.tightest_s * (1 - 1e-9)
    assert result.share_of_optimum <= 1 + 1e-9


def test_prompts_that_wait_hold_their_kv_and_stall_the_prefill_replica() -> None:
    """Decode takes one at a time: the second prompt waits for it, the third finds no room."""
    result = split_run(
        unshared([10] * 3, [15] * 3), "1P1D", kv=24, max_num_batched_tokens=10, max_num_seqs=1
    )
    first, second, third = sorted(result.transfers)
    assert first.prompt_s == pytest.approx(WEIGHTS_S)
    assert second.prompt_s == pytest.approx(2 * WEIGHTS_S)
    assert second.start_s >= result.finish_s[0]
    assert third.prompt_s == pytest.approx(3 * WEIGHTS_S)
    result = split_run(
        unshared([10] * 4, [12] * 4), "1P1D", kv=24, max_num_batched_tokens=10, max_num_seqs=1
    )
    last = max(result.transfers)
    assert last.prompt_s == pytest.approx(sorted(result.transfers)[1].end_s + WEIGHTS_S)


def test_a_cached_prefix_is_not_sent_again() -> None:
    shared = pool(["s" * 40 + chr(65 + k) * 10 for k in range(5)], [4] * 5)
    sent = [t.tokens for t in split_run(shared, "1P1D", kv=500).transfers]
    assert sent == [50, 10, 10, 10, 10]
    bare = split_run(shared, "1P1D", kv=500, enable_prefix_caching=False)
    assert [t.tokens for t in bare.transfers] == [50] * 5


def test_a_preempted_decode_is_computed_again_where_it_is() -> None:
    """Two of 10 + 14 tokens do not fit 40: the second starts over, prompt and outputs."""
    result = split_run(unshared([10, 10], [15, 15]), "1P1D", kv=40, enable_prefix_caching=False)
    assert result.preemptions == 1
    assert len(result.transfers) == 2
    assert result.recomputed_tokens == 20
    assert np.all(result.finish_s > 0)


def test_requests_go_to_the_decode_replica_with_the_fewest_tokens() -> None:
    w = unshared([40, 10, 10, 10], [50, 50, 50, 50])
    result = split_run(w, "1P2D", kv=500, max_num_batched_tokens=100)
    assert [t.receiver for t in sorted(result.transfers)] == [1, 2, 2, 2]


def test_the_order_is_cut_by_the_tokens_left_to_compute() -> None:
    w = unshared([60, 20, 20, 20], [2] * 4)
    order = split_run(w, "2P1D", kv=500).schedule
    assert order.order.tolist() == [0, 1, 2, 3]
    assert order.replica.tolist() == [0, 1, 1, 1]


def test_two_runs_are_equal() -> None:
    rng = np.random.default_rng(3)
    w = unshared(rng.integers(1, 40, 200), rng.integers(1, 60, 200))
    first, second = (split_run(w, "2P2D", "random", kv=300) for _ in range(2))
    assert first.finish_s.tolist() == second.finish_s.tolist()
    assert first.transfers == second.transfers


@pytest.mark.parametrize("text", ["", "1P", "1D1P", "0P1D", "1P0D", "1p1d", "01P1D", "1P1D ", "PD"])
def test_only_a_split_is_a_split(text: str) -> None:
    with pytest.raises(InputError, match="expected xPyD"):
        Disaggregation.parse(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheduler": "blendserve"}, "expected a fixed order"),
        ({"scheduler": "lpm"}, "expected a fixed order"),
        ({"dp": 2}, "dp: found 2"),
        ({"admission": "reserve"}, "engine.admission: found 'reserve'"),
        ({"async_scheduling": True}, "engine.async_scheduling"),
        ({"on_step": print}, "--steps"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        split_run(unshared([3, 3], [3, 3]), "1P1D", **options)


def test_a_decode_step_that_only_preempts_says_nothing_about_the_next_prompt() -> None:
    # A lone request without room preempts itself: a step of 0 seconds, while prompts are under way.
    workload = unshared(
        [12, 5, 15, 31, 26, 25], [16, 10, 13, 11, 20, 17], priority=[0, 1, 1, 0, 0, 0]
    )
    knobs = {"policy": "priority", "max_num_batched_tokens": 8, "max_num_seqs": 8}
    result = split_run(
        workload, "2P3D", kv=45, enable_prefix_caching=False, overlap="perfect", **knobs
    )
    assert result.preemptions > 0
    assert (result.finish_s > 0).all()
