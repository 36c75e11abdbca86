"""What holds for every pool, scheduler and engine: nothing lost, nothing twice, never too much."""

import json
import tracemalloc
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import bssim
import bssim.sim.cluster.side_by_side
from bssim.cost_models.bounds import Bounds
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import StepWork
from bssim.errors import InputError
from bssim.sim.engine import BlockCache, EngineCore, KVCache, RadixCache
from bssim.sim.result import SimulationResult
from bssim.sim.schedule import write_schedule
from bssim.sim.schedulers import FixedOrder, PlanContext, scheduler_names
from bssim.sim.schedulers.static_order import IntArray
from bssim.sim.workload import Workload, take
from tests.sim.harness import COST, HARDWARE, LLM, pool, run, unshared

MANY = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def pools(draw: st.DrawFn) -> Workload:
    """A pool whose prompts share much: few stems, few letters, short tails, some equal."""
    stems = draw(st.lists(st.text("ab", max_size=9), min_size=1, max_size=3))
    prompts = draw(
        st.lists(
            st.builds(lambda a, b: a + b, st.sampled_from(stems), st.text("abc", max_size=7)),
            min_size=1,
            max_size=14,
        )
    )
    n = len(prompts)
    outputs = draw(st.lists(st.integers(1, 12), min_size=n, max_size=n))
    priority = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    return pool([p or "z" for p in prompts], outputs, priority=priority)


@st.composite
def engines(draw: st.DrawFn, workload: Workload) -> dict[str, Any]:
    """Engine knobs; the cache holds the largest request, and often little more."""
    size = draw(st.sampled_from([1, 1, 2, 4]))
    need = int((workload.prompt_tokens + workload.output_tokens - 1).max())
    tokens = draw(st.sampled_from([8, 16, 64]))
    chunked = tokens < need or draw(st.booleans())
    return {
        "block_size": size,
        "kv": -(-need // size) + draw(st.sampled_from([0, 1, 3, 8, 40])),
        "max_num_batched_tokens": tokens,
        "max_num_seqs": draw(st.sampled_from([1, 3, 8])),
        "batch_multiple": draw(st.sampled_from([1, 8])),
        "admission": draw(st.sampled_from(["optimistic", "reserve"])),
        "enable_prefix_caching": draw(st.booleans()),
        "prefix_retention": draw(st.sampled_from(["lru", "none"])),
        "enable_chunked_prefill": chunked,
        "long_prefill_token_threshold": draw(st.sampled_from([0, 3])),
        "policy": draw(st.sampled_from(["fcfs", "priority"])),
        "async_scheduling": draw(st.booleans()),
        "watermark": draw(st.sampled_from([0.0, 0.1])),
        "output_lengths": draw(st.sampled_from(["oracle", "sampled", "mean"])),
        "overlap": draw(st.sampled_from(["sequential", "frontier", "perfect", "gamma:0.2"])),
    }


SCHEDULERS = st.sampled_from(scheduler_names())


COST_MODELS = [COST, RooflineCostModel(LLM, HARDWARE)]


@dataclass(frozen=True)
class Submitted(FixedOrder):
    order: tuple[int, ...]
    name: str = "submitted"

    def parts(self, context: PlanContext) -> list[IntArray]:
        return [np.array(self.order, dtype=np.int64)]


def totals(result: SimulationResult) -> dict[str, float]:
    work = [t.work.total() for t in result.timelines]
    return {f.name: sum(getattr(w, f.name) for w in work) for f in fields(StepWork)}


class Ledger:
    """Books every step's row; wrong entries are assertion errors."""

    def __init__(self, workload: Workload) -> None:
        ids = [workload.request_id(i) for i in range(len(workload))]
        self.prompt = dict(zip(ids, workload.prompt_tokens.tolist(), strict=True))
        self.need = dict(
            zip(ids, (workload.prompt_tokens + workload.output_tokens - 1).tolist(), strict=True)
        )
        self.computed: dict[str, int] = {}
        self.reached: dict[str, int] = {}
        self.finished: list[str] = []
        self.scheduled = self.first_hits = self.recomputed = self.preemptions = 0
        self.lost = self.other_hits = 0

    def book(self, row: dict[str, Any]) -> None:
        for r in row["preempted"]:
            self.preemptions += 1
            if r in self.finished:  # async scheduling: its last token was in flight
                continue
            self.reached[r] = self.computed.pop(r)
            self.lost += self.reached[r]
        for r, hit in row["cached"].items():
            assert r not in self.computed
            if r in self.reached:
                self.recomputed += max(0, self.reached.pop(r) - hit)
                self.other_hits += hit
            else:
                self.first_hits += hit
                assert hit < self.prompt[r]
            self.computed[r] = hit
        for r, tokens in row["scheduled"].items():
            assert tokens > 0
            assert r not in self.finished
            self.computed[r] += tokens
            self.scheduled += tokens
        for r in row["finished"]:
            assert r in row["scheduled"]
            assert self.computed.pop(r) == self.need[r]
            self.finished.append(r)


@MANY
@given(pools(), SCHEDULERS, st.data())
def test_every_request_finishes_once_and_no_token_is_lost(workload, scheduler, data):
    knobs = data.draw(engines(workload))
    ledger = Ledger(workload)
    result = run(workload, scheduler, on_step=ledger.book, record_timeline=True, **knobs)
    assert sorted(ledger.finished) == sorted(ledger.need)
    assert sorted(result.schedule.order.tolist()) == list(range(len(workload)))
    # tokens scheduled = tokens needed - hits at admission + what preempted requests had computed
    needed = sum(ledger.need.values())
    assert ledger.scheduled == needed - ledger.first_hits - ledger.other_hits + ledger.lost
    assert result.cached_tokens == ledger.first_hits
    assert result.recomputed_tokens == ledger.recomputed
    assert result.preemptions == ledger.preemptions
    event("preempted" if result.preemptions else "not preempted")
    event("hits" if result.cached_tokens else "no hits")

    work = totals(result)
    assert work["decode_requests"] + work["prefill_tokens"] == ledger.scheduled
    assert result.finish_s.max() == pytest.approx(result.makespan_s)
    assert result.finish_s.min() > 0
    assert result.peak_kv_tokens <= knobs["kv"] * knobs["block_size"]
    kv = result.timelines[0].kv_tokens
    assert kv.max() == result.peak_kv_tokens
    assert kv.min() >= 0
    for bound in (f.name for f in fields(Bounds)):
        assert getattr(result.bounds, bound) <= result.makespan_s * (1 + 1e-9), bound


def test_a_token_generated_after_a_preemption_reads_its_context():
    """What had been computed before is prefilled again; the next token is a decode."""
    result = run(unshared([6, 4, 4], [30, 11, 12]), kv=39, record_timeline=True)
    assert result.preemptions == 1
    assert result.share_of_bound <= 1
    work = totals(result)
    assert work["prefill_tokens"] == 6 + 4 + 4 + result.recomputed_tokens
    assert work["decode_requests"] == 29 + 10 + 11
    assert work["decode_context_tokens"] == sum(
        p + k for p, d in ((6, 30), (4, 11), (4, 12)) for k in range(d - 1)
    )


@settings(MANY, max_examples=200)
@given(pools(), SCHEDULERS, st.sampled_from(COST_MODELS), st.data())
def test_no_bound_is_beaten_with_preemptions(workload, scheduler, cost_model, data):
    knobs = data.draw(engines(workload))
    longest = int((workload.prompt_tokens + workload.output_tokens - 1).max())
    knobs |= {"block_size": 1, "kv": longest}
    result = run(workload, scheduler, cost_model=cost_model, **knobs)
    event("preempted" if result.preemptions else "not preempted")
    assert result.share_of_bound <= 1 + 1e-9


@MANY
@given(pools(), st.data())
def test_priority_ties_break_on_arrival(workload, data):
    """An order takes the steps of the same pool submitted in that order."""
    knobs = data.draw(engines(workload)) | {"policy": "priority", "output_lengths": "oracle"}
    order = data.draw(st.permutations(range(len(workload))))
    names = [f"r{r}" for r in order]
    permuted = take(workload, np.array(order))
    rows: list[list[dict[str, Any]]] = [[], []]
    run(workload, Submitted(tuple(order)), on_step=rows[0].append, **knobs)
    run(permuted, "fcfs", on_step=rows[1].append, **knobs)
    for ours, theirs in zip(*rows, strict=True):
        scheduled = {names[int(r[1:])]: n for r, n in theirs["scheduled"].items()}
        assert list(ours["scheduled"].items()) == list(scheduled.items())
        assert ours["preempted"] == [names[int(r[1:])] for r in theirs["preempted"]]


def test_a_prompt_that_another_request_cached_meanwhile_needs_no_second_room():
    """r0 is in prefill when r1 caches its prompt: it starts over from there, and ends."""
    workload = pool(["a" * 42, "a" * 40], [3, 1])
    result = run(
        workload, "dfs", kv=44, long_prefill_token_threshold=10, enable_chunked_prefill=False
    )
    assert result.finish_s.min() > 0


def test_replicas_share_the_columns_of_the_pool():
    n = 20_000
    workload = unshared([8] * n, [2] * n)
    peak = {}
    for dp in (1, 64):
        tracemalloc.start()
        run(workload, dp=dp)
        peak[dp] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak[64] < 1.5 * peak[1]


@MANY
@given(pools(), SCHEDULERS, st.data())
def test_many_steps_at_once_are_the_same_steps(workload, scheduler, data):
    knobs = data.draw(engines(workload)) | {"dp": data.draw(st.sampled_from([1, 1, 2]))}
    fast = run(workload, scheduler, **knobs)
    single = run(workload, scheduler, on_step=lambda row: None, **knobs)
    assert fast.steps == single.steps
    assert fast.schedule.order.tolist() == single.schedule.order.tolist()
    assert fast.finish_s.tolist() == pytest.approx(single.finish_s.tolist(), rel=1e-12)
    for name in (
        "cached_tokens",
        "recomputed_tokens",
        "preemptions",
        "peak_kv_tokens",
        "notes",
    ):
        assert getattr(fast, name) == getattr(single, name), name
    for name in ("compute_s", "memory_s", "makespan_s"):
        assert getattr(fast, name) == pytest.approx(getattr(single, name), rel=1e-12), name


@MANY
@given(pools(), SCHEDULERS, st.integers(1, 5), st.data())
def test_steps_per_timeout_do_not_matter(workload, scheduler, steps, data):
    knobs = data.draw(engines(workload))
    whole = run(workload, scheduler, record_timeline=True, **knobs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bssim.sim.cluster.side_by_side, "STEPS_PER_TIMEOUT", steps)
        cut = run(workload, scheduler, record_timeline=True, **knobs)
    assert cut.finish_s.tolist() == whole.finish_s.tolist()
    assert cut.makespan_s == pytest.approx(whole.makespan_s, rel=1e-12)
    for f in fields(StepWork):
        ours, theirs = (getattr(r.timelines[0].work, f.name) for r in (cut, whole))
        assert np.array_equal(ours, theirs), f.name
    assert cut.timelines[0].kv_tokens.tolist() == whole.timelines[0].kv_tokens.tolist()


@MANY
@given(pools(), SCHEDULERS, st.integers(1, 4), st.data())
def test_replicas_partition_the_pool(workload, scheduler, dp, data):
    knobs = data.draw(engines(workload))
    result = run(workload, scheduler, dp=dp, **knobs)
    assert sorted(result.schedule.order.tolist()) == list(range(len(workload)))
    assert set(result.schedule.replica.tolist()) <= set(range(dp))
    assert result.bounds.tightest_s <= result.makespan_s * (1 + 1e-9)
    assert np.all(result.finish_s > 0)


@MANY
@given(workload=pools(), scheduler=SCHEDULERS, data=st.data())
def test_two_runs_are_equal_byte_for_byte(tmp_path_factory, workload, scheduler, data):
    knobs = data.draw(engines(workload)) | {"seed": data.draw(st.integers(0, 3))}
    folder = tmp_path_factory.mktemp("runs")
    written = []
    for k in range(2):
        rows: list[dict[str, Any]] = []
        result = run(workload, scheduler, on_step=rows.append, **knobs)
        write_schedule(folder / f"{k}.jsonl", result.schedule, workload)
        values = (result.makespan_s, result.finish_s.tobytes(), result.compute_s, result.notes)
        written.append(((folder / f"{k}.jsonl").read_bytes(), json.dumps(rows), values))
    assert written[0] == written[1]


@MANY
@given(pools(), st.sampled_from([1, 16, 4]))
def test_dfs_reaches_the_most_hits_that_whole_blocks_allow(workload, block_size):
    most = workload.max_cached_tokens // block_size * block_size
    result = run(workload, "dfs", block_size=block_size, kv=4000 // block_size)
    assert result.cached_tokens == int(most.sum())
    assert result.preemptions == 0
    if block_size == 1:
        assert result.sharing <= result.sharing_max


@MANY
@given(pools(), SCHEDULERS, st.sampled_from([1, 2, 4]), st.data())
def test_no_order_has_more_hits_than_dfs(workload, scheduler, block_size, data):
    knobs = data.draw(engines(workload)) | {"block_size": block_size, "kv": 60}
    most = int((workload.max_cached_tokens // block_size * block_size).sum())
    # A prompt that others extend loses its last block where it comes after them: the last token
    # is always computed. Before them, it gives all of it.
    extended = int((workload.prompt_tokens == workload.shared_tokens).sum())
    result = run(workload, scheduler, **knobs)
    assert result.cached_tokens <= most + extended * block_size
    assert result.sharing <= result.sharing_max


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("scheduler", ["blendserve", "blendserve_adaptive", "ratio:no-pacing"])
def test_a_scheduler_decides_the_same_if_each_step_is_recorded(scheduler, policy):
    workload = unshared(
        [15, 8, 21, 19, 28, 22, 10, 14],
        [29, 15, 17, 37, 40, 10, 9, 15],
        priority=[0, 0, 0, 0, 1, 0, 1, 0],
    )
    knobs = {"kv": 72, "max_num_batched_tokens": 16, "max_num_seqs": 2, "policy": policy}
    rows: list[dict[str, Any]] = []
    fast = run(workload, scheduler, overlap="perfect", **knobs)
    slow = run(workload, scheduler, overlap="perfect", on_step=rows.append, **knobs)
    assert slow.finish_s.tolist() == fast.finish_s.tolist()
    assert slow.steps == fast.steps == len(rows)


@pytest.mark.parametrize("output_lengths", ["oracle", "sampled"])
def test_without_overlap_an_adaptive_scan_adds_no_steps(output_lengths):
    """Nothing overlaps with the reads, so a pace could only lengthen the run."""
    workload = unshared([800] * 100, [120] * 100)
    steps = {
        scheduler: bssim.simulate(
            workload, scheduler, engine="vllm", output_lengths=output_lengths
        ).steps
        for scheduler in ("fcfs", "blendserve_adaptive")
    }
    assert steps["blendserve_adaptive"] <= 1.1 * steps["fcfs"]


def test_a_prefix_that_fills_the_cache_is_computed_again_in_smaller_chunks():
    """The second request is ahead in the prefix when it is preempted; the first one holds it."""
    workload = pool(["aaaaaacb", "aaaaaaac"], [1, 1])
    rows: list[dict[str, Any]] = []
    knobs = {"long_prefill_token_threshold": 3, "prefix_retention": "none"}
    run(workload, kv=8, max_num_batched_tokens=8, max_num_seqs=3, on_step=rows.append, **knobs)
    assert [r for row in rows for r in row["finished"]] == ["r0", "r1"]
    assert sum(len(row["preempted"]) for row in rows) == 1


@pytest.fixture
def caches(monkeypatch) -> list[KVCache]:
    """Every cache that an engine core got while the test ran."""
    seen: list[KVCache] = []
    init = EngineCore.__init__

    def spy(self: EngineCore, *args: Any, **kwargs: Any) -> None:
        seen.append(args[3])
        init(self, *args, **kwargs)

    monkeypatch.setattr(EngineCore, "__init__", spy)
    return seen


@MANY
@given(workload=pools(), scheduler=SCHEDULERS, data=st.data())
def test_free_blocks_are_the_empty_and_the_queued_ones(caches, workload, scheduler, data):
    knobs = data.draw(engines(workload))
    caches.clear()

    def check(row: dict[str, Any]) -> None:
        cache = caches[-1]  # `ratio` may simulate small pools before
        assert 0 <= row["free_blocks"] <= cache.capacity
        assert 0 <= cache.free <= cache.capacity
        if isinstance(cache, BlockCache):
            assert cache.free == cache._empty + sum(cache._queue.values())
        else:
            assert isinstance(cache, RadixCache)
            check_tokens(cache)

    run(workload, scheduler, on_step=check, **knobs)
    cache = caches[-1]
    assert cache.free == cache.capacity  # all is let go in the end


def check_tokens(cache: RadixCache) -> None:
    queued = 0
    for key, count in cache._lru.items():
        assert key < 0 or cache._ref[key] == 0
        queued += cache._cached[key] if key > 0 else count[0]
    assert cache.free == cache._empty + queued
    for v in range(1, len(cache._parent)):
        assert 0 <= cache._cached[v] <= cache._segment[v]
        above = cache._parent[v]
        # a prefix is cached from its start: nothing below a node that is not whole
        assert not cache._cached[v] or cache._cached[above] == cache._segment[above]


def test_a_request_that_cannot_fit_is_named_or_dropped():
    workload = pool(["ab", "abcdef", "abcdefgh"], [1, 2, 3])
    with pytest.raises(InputError, match=r"request 'r1' has 6 prompt \+ 2 output.*1 more"):
        run(workload, kv=6)
    result = run(workload, kv=6, on_oversize="drop")
    assert result.num_requests == 1
    assert any("dropped 2 requests" in note for note in result.notes)
    with pytest.raises(InputError, match="no request fits"):
        run(workload, kv=1, on_oversize="drop")
