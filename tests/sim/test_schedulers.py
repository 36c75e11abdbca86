"""Static orders, longest prefix match, and the parts of BlendServe (paper section 5)."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.errors import InputError
from bssim.sim.lengths import KnownEstimator, OutputEstimates
from bssim.sim.schedulers import contiguous, dealt, make_scheduler, round_robin, scheduler_names
from bssim.sim.schedulers.blendserve import (
    SHARING_KEPT,
    DualScan,
    UnitSeconds,
    blend,
    density_order,
    partition_memory,
    request_loads,
)
from bssim.sim.schedulers.blendserve.blended_order import BlendedOrder
from bssim.sim.schedulers.blendserve.dual_scan import LEFT, OUTLIVED, RIGHT
from bssim.sim.schedulers.blendserve.kv_horizon import KvHorizon
from bssim.sim.schedulers.blendserve.planner import BlendPlanner
from bssim.sim.schedulers.blendserve.remaining import RunningWork
from bssim.sim.schedulers.blendserve.resource_tree import split_outliers
from bssim.sim.schedulers.blendserve.step_fill import StepFill
from bssim.sim.schedulers.lpm import Lpm
from bssim.sim.workload import Workload, load_workload
from tests.sim.harness import COST, pool, run, steps, unshared

UNIT = UnitSeconds.of(COST)


def known(workload: Workload) -> OutputEstimates:
    d = workload.output_tokens.astype(np.float64)
    return OutputEstimates(d, d * d, known=True)


def order_of(workload: Workload, scheduler, **options) -> list[str]:
    result = run(workload, scheduler, **options)
    return [workload.request_id(r) for r in result.schedule.order.tolist()]


FAMILIES = pool(["aa1", "bb1", "aa2", "c", "bb2"], [1, 9, 1, 1, 30])


def test_static_orders():
    assert order_of(FAMILIES, "fcfs") == ["r0", "r1", "r2", "r3", "r4"]
    assert order_of(FAMILIES, "dfs") == ["r0", "r2", "r1", "r4", "r3"]
    # density: the a's share their two tokens and have no decode; "c" computes less per KV read
    # than neither; among the b's the short output first
    compute_first = order_of(FAMILIES, "dfs_compute_first")
    assert compute_first.index("r1") < compute_first.index("r4") == 4
    assert order_of(FAMILIES, "dfs_memory_first")[:2] == ["r4", "r1"]


def test_random_is_a_permutation_of_its_seed():
    w = unshared([1] * 200, [1] * 200)
    first = order_of(w, "random", seed=1)
    assert first == order_of(w, "random", seed=1)
    assert first != order_of(w, "random", seed=2)
    assert sorted(first) == sorted(order_of(w, "fcfs")) != first


def test_unknown_schedulers_are_input_errors():
    with pytest.raises(InputError, match=r"did you mean 'blendserve'"):
        make_scheduler("blendsrve")
    assert all(make_scheduler(name).name == name for name in scheduler_names())


# Longest prefix match


def test_lpm_takes_the_longest_cached_prefix():
    w = pool(["abcdefgh", "x", "abcdzzzz", "abcdefyy", "abzzzzzz"], [1] * 5)
    one = {"max_num_seqs": 1}
    # after "abcdefgh": six tokens, four, two, none
    assert order_of(w, "lpm_no_cutoff", **one) == ["r0", "r3", "r2", "r4", "r1"]
    assert order_of(w, "lpm", **one) == ["r0", "r3", "r2", "r4", "r1"]


def test_lpm_is_fcfs_above_its_cutoff():
    w = pool(["abcdefgh", "x", "y", "abcdefyy"], [1] * 4)
    # three wait after the first: still above two; then two, and the cutoff no longer holds
    assert order_of(w, Lpm(cutoff=2), max_num_seqs=1) == ["r0", "r1", "r3", "r2"]
    assert order_of(w, Lpm(cutoff=1), max_num_seqs=1) == ["r0", "r1", "r2", "r3"]


# The memory partition and the resource-aware tree


def test_figure_6_of_the_paper():
    share = partition_memory(3.73, 0.096, 1.27)
    # the printed densities are rounded: 19.3 and 40.7 GB in the paper
    assert 60 * share == pytest.approx(19.3, rel=0.005)
    assert 60 * (1 - share) == pytest.approx(40.7, rel=0.005)


@given(*[st.floats(0.01, 100) for _ in range(3)])
def test_memory_blends_to_the_density_of_the_pool(left, right, root):
    share = partition_memory(left, right, root)
    assert 0 <= share <= 1
    if left > root > right:
        assert share * left + (1 - share) * right == pytest.approx(root)
    else:
        nearer = min(abs(left - root), abs(right - root))
        assert abs({1.0: left, 0.0: right}[share] - root) == nearer


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
)
def test_siblings_stand_by_falling_density(prompts, random):
    w = pool(prompts, [random.randint(1, 40) for _ in prompts])
    loads = request_loads(w, known(w), UNIT)
    order = density_order(w, loads)
    assert sorted(order.tolist()) == list(range(len(w)))
    place = np.argsort(order)
    end = w.tree.subtree_end
    for v in range(w.tree.num_nodes):
        children = [c for c in range(w.tree.num_nodes) if w.tree.parent[c] == v]
        items = [np.flatnonzero((w.node >= c) & (w.node < end[c])) for c in children]
        items += [np.array([r]) for r in np.flatnonzero(w.node == v)]
        items.sort(key=lambda rows: place[rows].min())
        for rows in items:  # a subtree is a run of neighbours
            assert place[rows].max() - place[rows].min() == len(rows) - 1
        densities = [loads.compute_s[rows].sum() / loads.memory_s[rows].sum() for rows in items]
        assert np.all(np.diff(densities) <= 1e-9 * np.max(densities, initial=1))
    backwards = density_order(w, loads, ascending=True)
    best, worst = (loads.compute_s[r] / loads.memory_s[r] for r in (order[0], backwards[0]))
    assert w.tree.num_nodes > 1 or best >= worst


def test_shared_tokens_are_loaded_on_all_who_share_them():
    w = pool(["aaaax", "aaaay", "bb"], [1, 3, 2])
    loads = request_loads(w, known(w), UNIT)
    assert loads.prefill_tokens.tolist() == [3, 3, 2]
    assert loads.compute_s == pytest.approx(np.array([4, 6, 4]) * UNIT.compute_s)
    assert loads.kv_token_steps.tolist() == [5 + 0.5, 15 + 4.5, 4 + 2]
    part = request_loads(w, known(w), UNIT, np.array([True, False, True]))
    assert part.prefill_tokens.tolist() == [5, 0, 2]


def test_splits_stay_within_their_budget_and_mend_the_order():
    # one family of prefill-only requests with a few long outputs among them
    outputs = [1] * 50 + [4000] * 3 + [2000] * 47
    w = pool(["s" * 20 + f"{k:02d}" for k in range(53)] + [f"{k:02d}" for k in range(47)], outputs)
    loads = request_loads(w, known(w), UNIT)
    order = density_order(w, loads)
    assert split_outliers(w, loads, order, 0.0).tolist() == []
    moved = split_outliers(w, loads, order, 70.0)
    assert set(moved.tolist()) <= set(range(53))
    assert w.shared_tokens[moved].sum() <= 70
    everything = np.ones(len(w), np.bool_)
    plan = blend(w, known(w), UNIT, everything, split_tokens=1e6)
    assert {50, 51, 52} <= set(np.asarray(plan.order.order)[-50:].tolist())
    assert plan.order.known_lengths
    d = w.output_tokens.astype(np.float64)
    believed = blend(w, OutputEstimates(d, d * d), UNIT, everything, split_tokens=1e6)
    assert not believed.order.known_lengths  # `mean_only` and `max_tokens` are no truth


def test_all_plans_of_a_run_share_one_split_budget():
    outputs = [1] * 500 + [4000] * 3 + [2000] * 47
    w = pool(["s" * 20 + f"{k:03d}" for k in range(503)] + [f"{k:03d}" for k in range(47)], outputs)
    estimates = known(w)
    planner = BlendPlanner(w, np.arange(len(w)), KnownEstimator("oracle", estimates), UNIT)
    planner.first_order()
    budget = (1 - SHARING_KEPT) * w.max_cached_tokens.sum()
    most = int(budget // 20)
    assert planner.note() == f"0 requests sampled, 1 plan, {most} leaves moved by node splits"
    # all that were cut have been admitted
    planner._unseen[:] = False
    planner._unseen[~planner._moved] = True
    planner.plan(estimates)
    assert w.shared_tokens[planner._moved].sum() <= budget
    planner._unseen[:] = True  # none has been: the same cuts again, counted once
    planner.plan(estimates)
    assert f"3 plans, {most} leaves" in planner.note()


# The dual scan


def engine_at(step: int, decodes: int = 0, kv: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        step=step, decodes=decodes, decode_context_tokens=kv, generated_tokens=lambda r: 0
    )


def scan_two_kinds(
    kv: int = 20_000, *, known_lengths: bool = False, adaptive: bool = False, long: int = 20
) -> DualScan:
    """Scan 0..19, long prompts, and 20..39, the last ``long`` of them long outputs."""
    w = unshared([100] * 20 + [10] * 20, [2] * (40 - long) + [5000] * long)
    estimates = known(w)
    planner = BlendPlanner(w, np.arange(40), KnownEstimator("known", estimates), UNIT)
    planner.first_order()
    loads = request_loads(w, estimates, UNIT)
    order = BlendedOrder(
        density_order(w, loads), loads, known_lengths=known_lengths, unit_requests=5
    )
    return DualScan(order, kv, StepFill(128, 100.0), planner, UNIT if adaptive else None)


def admit_all(scan: DualScan, step: int) -> list[int]:
    """Admit what the scan offers in one step of an engine with room for everything."""
    scan.begin_step(engine_at(step))
    admitted = []
    while (r := scan.peek()) >= 0:
        tokens = min(scan.token_limit(r), 100)
        scan.admitted(r, 0)
        scan.prefilled(r, tokens)
        admitted.append(r)
    return admitted


def test_both_ends_are_admitted_and_an_early_finish_frees_a_seat():
    scan = scan_two_kinds()
    first = admit_all(scan, 0)
    right = [r for r in first if r >= 20]
    assert right
    assert [r for r in first if r < 20]
    assert len(right) < 20  # its seats are full
    assert not [r for r in admit_all(scan, 1) if r >= 20]
    scan.finished(right[0])
    assert len([r for r in admit_all(scan, 2) if r >= 20]) == 1


def test_a_left_request_past_its_estimate_moves_to_the_right():
    scan = scan_two_kinds()
    first = admit_all(scan, 0)
    left = next(r for r in first if r < 20)
    assert scan._side[left] == LEFT
    scan.begin_step(engine_at(int(OUTLIVED * 2) - 1))
    assert scan._side[left] == LEFT
    scan.begin_step(engine_at(int(OUTLIVED * 2)))
    assert scan._side[left] == RIGHT
    assert scan._count == [0, sum(s == RIGHT for s in scan._side.values())]


def test_preempted_requests_come_back_first_on_their_side():
    scan = scan_two_kinds()
    first = admit_all(scan, 0)
    right = [r for r in first if r >= 20]
    scan.preempted(right[-1])
    assert admit_all(scan, 1)[0] == right[-1]


def test_room_for_a_whole_life_counts_those_that_came_back_from_a_preemption():
    capacity = 4 * 5010 + 1000  # whole lives of four long outputs
    scan = scan_two_kinds(capacity, known_lengths=True)
    running = [r for r in admit_all(scan, 0) if r >= 20]
    scan.preempted(running[-1])
    came = []
    for step in range(1, 2000):  # the left finds no room, and nobody ends
        scan.begin_step(engine_at(step))
        while (r := scan.peek()) >= 0:
            if r < 20:
                assert scan.blocked(r)
                continue
            scan.admitted(r, 0)
            came.append(r)
    assert came == [running[-1]]


def test_the_right_unit_is_memory_intensive_or_there_is_none():
    order = scan_two_kinds(long=3)._blended
    root = order.density(0, 40)
    unit = order.right_unit(0, 40, root)
    assert unit is not None
    assert unit.output_tokens == 5000  # not the mean of five, two of them short
    assert order.right_unit(0, 37, root) is None


def test_the_left_side_is_paced_by_the_kv_that_the_right_side_holds():
    scan = scan_two_kinds()
    admit_all(scan, 0)
    paces = []
    for step in (1000, 2000):
        scan.begin_step(engine_at(step))
        paces.append(scan._pace(engine_at(step)))
    # long outputs and the long prompts that should have ended long ago
    held = [sum((100 if r < 20 else 10) + step for r in scan._side) for step in (1000, 2000)]
    assert paces[1] / paces[0] == pytest.approx(held[1] / held[0])


def test_an_adaptive_step_stands_to_its_reads_as_the_work_that_remains():
    scan = scan_two_kinds(known_lengths=True, adaptive=True)
    running = admit_all(scan, 0)
    scan._refresh_at = 0
    scan.begin_step(engine_at(10, decodes=7, kv=90_000))
    waiting = [r for r in range(40) if r not in running]
    # read from now on: what is held, and what grows
    left = [5000 - 10 for r in running if r >= 20]
    reads = sum((10 + 10) * d + d * d / 2 for d in left)
    reads += sum(10 * 5000 + 5000**2 / 2 if r >= 20 else 100 * 2 + 2 for r in waiting)
    tokens = sum(left) + sum(5010 if r >= 20 else 102 for r in waiting)
    short = [r for r in running if r < 20]
    for _ in short:  # past their end: one token was added, two steps were to come at step 0
        reads += (100 + 10) * (2 - 10) + (2 - 10) ** 2 / 2
        tokens += 2 - 10
    assert scan._pace(engine_at(10, decodes=7, kv=90_000)) == pytest.approx(
        90_000 * tokens / reads - 7
    )


def test_steps_are_filled_to_whole_multiples_and_the_rest_is_credit():
    fill = StepFill(128, 100.0)
    planned = []
    for _ in range(100):
        fill.begin_step(150.0, 1, decodes=40)
        planned.append(fill.left_tokens)
        fill.prefilled(0, fill.left_tokens, left=True)
    assert {(40 + tokens) % 128 for tokens in planned} == {0}
    assert np.mean(planned) == pytest.approx(150, abs=3)


def test_what_the_right_side_breaks_the_left_side_fills_up():
    fill = StepFill(128, 100.0)
    fill.begin_step(10.0, 1, decodes=40)
    fill.prefilled(1, 300, left=False)
    assert (40 + 300 + fill.left_tokens) % 128 == 0


def test_one_left_prompt_is_in_progress_at_a_time():
    fill = StepFill(128, 100.0)
    fill.begin_step(10.0, 1, decodes=0)
    fill.started(3, 200)
    fill.prefilled(3, 128, left=True)
    assert not fill.may_start
    fill.begin_step(10.0, 1, decodes=0)
    fill.prefilled(3, 72, left=True)
    assert fill.may_start


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 80)), min_size=1), st.integers(0, 30))
def test_known_remaining_work_is_that_of_a_step_by_step_count(spans, later):
    work = RunningWork()
    work.restart(0, [(r, p, 0, float(d)) for r, (p, d) in enumerate(spans)], known=True)
    for r, (_, d) in enumerate(spans):
        if d <= later:
            work.remove(r)
    tokens, reads = work.at(later)
    alive = [(p, d) for p, d in spans if d > later]
    assert tokens == pytest.approx(sum(d - later for _, d in alive))
    # the context read in a step, on average over it
    counted = sum(p + k + 0.5 for p, d in alive for k in range(later, d))
    assert reads == pytest.approx(counted, abs=1e-6)


def test_quiet_steps_that_come_as_one_earn_the_same_budget():
    a, b = StepFill(128, 1.0), StepFill(128, 1.0)
    for _ in range(9):
        a.begin_step(20.0, 1, decodes=5)
    b.begin_step(20.0, 9, decodes=5)
    assert a.left_tokens == b.left_tokens > 0


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=12),
    st.integers(0, 30),
)
def test_the_peak_to_come_is_that_of_a_step_by_step_count(spans, step):
    horizon = KvHorizon()
    for r, (context, left) in enumerate(spans[:-1]):
        horizon.add(r, step, context, left)
    counted = max(
        sum(context + k for context, left in spans if k <= left)
        for k in range(1 + max(left for _, left in spans))
    )
    assert horizon.fits(step, *spans[-1], limit=counted)
    assert not horizon.fits(step, *spans[-1], limit=counted - 1)
    for r in range(len(spans)):
        horizon.remove(r, step)
    assert horizon.fits(0, 3, 4, limit=7)
    assert not horizon.fits(0, 3, 4, limit=6)


def test_the_sample_runs_first_and_is_no_barrier():
    outputs = [2] * 300 + [400] * 100
    w = pool([f"a{k:03d}" for k in range(300)] + [f"b{k:03d}" for k in range(100)], outputs)
    rows = steps(w, "blendserve", output_lengths="sampled", kv=4000, max_num_seqs=64, seed=3)
    result = run(w, "blendserve", output_lengths="sampled", kv=4000, max_num_seqs=64, seed=3)
    sampled = result.schedule.order[:60]
    assert (sampled < 300).sum() == (sampled >= 300).sum() == 30
    last_sampled = max(result.finish_s[sampled])
    others = np.setdiff1d(np.arange(len(w)), sampled)
    assert (result.finish_s[others] < last_sampled).sum() > 100
    assert len(rows) == result.steps


def test_a_sample_that_ends_at_once_is_learned_from():
    w = unshared([10] * 100, [1] * 100)
    result = run(w, "blendserve", output_lengths="sampled")
    assert len(result.schedule.order) == 100
    assert any("30 requests sampled, 1 plan," in note for note in result.notes)


# Data parallelism


def test_round_robin_and_contiguous_parts():
    order = np.arange(7)
    assert [p.tolist() for p in round_robin(order, 3)] == [[0, 3, 6], [1, 4], [2, 5]]
    load = np.array([4.0, 1, 1, 2, 1, 1, 2])
    assert [p.tolist() for p in contiguous(order, 3, load)] == [[0], [1, 2, 3], [4, 5, 6]]


def test_dealt_parts_balance_both_resources_and_the_longest_outputs():
    rng = np.random.default_rng(0)
    many = unshared(rng.integers(1, 2000, 20_000), rng.geometric(0.01, 20_000))
    # 33 long outputs carry most of the memory seconds of this one
    few = load_workload("trace1", num_requests=40_000)
    for w in (many, few):
        loads = request_loads(w, known(w), UNIT)
        order = density_order(w, loads)
        for replicas in (2, 4):
            parts = dealt(order, replicas, loads.compute_s, loads.memory_s)
            assert sorted(np.concatenate(parts).tolist()) == list(range(len(w)))
            for load in (loads.compute_s, loads.memory_s):
                off = np.abs([load[p].sum() - load.sum() / replicas for p in parts])
                # as near as whole requests allow
                assert off.max() <= max(0.02 * load.sum() / replicas, 2 * load.max())
            if w is few:
                longest = np.argsort(-w.output_tokens, kind="stable")[: 2 * replicas]
                assert all(np.isin(longest, p).any() for p in parts)


@pytest.mark.parametrize("name", ["trace1", "trace2"])
def test_blendserve_keeps_the_sharing(name):
    w = load_workload(name, num_requests=20_000)
    result = run(
        w,
        "blendserve",
        kv=460_000,
        max_num_batched_tokens=2048,
        max_num_seqs=1024,
        overlap="frontier",
        output_lengths="sampled",
    )
    assert result.sharing >= 0.97 * result.sharing_max
