"""Which replicas a simulation has: equal ones side by side, or pools for prefill and decode."""

from collections.abc import Callable, Sequence

import numpy as np
import simpy

from bssim.errors import InputError
from bssim.sim.cluster.disaggregation import Disaggregation, KVLink
from bssim.sim.cluster.phase_engines import DecodeEngine, PrefillEngine
from bssim.sim.cluster.pools import DecodeReplica, PrefillReplica, run_pools
from bssim.sim.cluster.replica import Replica
from bssim.sim.engine.block_cache import BlockCache
from bssim.sim.engine.core import EngineCore
from bssim.sim.engine.kv_cache import KVCache, RadixCache
from bssim.sim.engine.step_columns import StepRow
from bssim.sim.result import Outcome
from bssim.sim.schedulers.interface import Plan
from bssim.sim.schedulers.partition import contiguous
from bssim.sim.schedulers.static_order import StaticOrder
from bssim.sim.setup import Setup
from bssim.sim.workload.prefix_tree import infinite_cache_hits

Progress = Callable[[int, int], None]
"""Called with (finished requests, all requests)."""


def run_side_by_side(
    setup: Setup,
    plan: Plan,
    *,
    on_step: Callable[[StepRow], None] | None = None,
    record_timeline: bool = False,
    progress: Progress | None = None,
) -> tuple[list[Replica], Outcome]:
    """Run data-parallel replicas, one per policy; they have nothing to do with each other."""
    workload, engine = setup.workload, setup.engine
    reserved = None
    if engine.admission == "reserve":
        most = np.minimum(
            workload.prompt_tokens + np.ceil(plan.estimated_output_tokens).astype(np.int64),
            setup.blocks * engine.block_size,
        )
        reserved = most.tolist()
    replicas: list[Replica] = []
    for k, policy in enumerate(plan.policies):
        core = EngineCore(
            workload,
            policy,
            engine,
            _empty_cache(setup),
            reserved_tokens=reserved,
            on_step=_tagged(on_step, k, len(plan.policies)),
            single_steps=_single_steps(setup, record_timeline),
        )
        replicas.append(
            Replica(
                core,
                setup.cost_model,
                setup.overlap,
                engine.batch_multiple,
                keep_timeline=record_timeline,
                progress=_summed(progress, replicas, len(workload)),
            )
        )
    env = simpy.Environment()
    for replica in replicas:
        env.process(replica.run(env))
    env.run()
    finish_s = np.zeros(len(workload))
    for replica in replicas:
        mine = np.asarray(replica.core.order, dtype=np.int64)  # none if replicas outnumber requests
        ends = np.cumsum(replica.step_s)
        finish_s[mine] = ends[np.asarray(replica.core.finish_step)[mine]]
    return replicas, Outcome(float(env.now), finish_s)


def run_disaggregated(
    setup: Setup,
    plan: Plan,
    split: Disaggregation,
    link: KVLink,
    *,
    record_timeline: bool = False,
    progress: Progress | None = None,
) -> tuple[list[Replica], Outcome]:
    """Run the order of ``plan``, made for one replica, on prefill and decode replicas.

    The order is cut into runs of equal prompt tokens that are left to compute, one a prefill
    replica, which keeps neighbours and their prefix together. Raises InputError if the policy is
    no fixed order.
    """
    workload, engine = setup.workload, setup.engine
    (policy,) = plan.policies
    if not isinstance(policy, StaticOrder):
        raise InputError(
            "scheduler",
            f"one without a fixed order beside disaggregation {split}",
            "an order that does not depend on what runs",
        )
    order = policy.remaining()
    hits = infinite_cache_hits(workload.tree, workload.node, workload.prompt_tokens, order)
    computed = (workload.prompt_tokens - hits).astype(np.float64)
    pricing = (setup.cost_model, setup.overlap, engine.batch_multiple)
    env = simpy.Environment()
    prefill = [
        PrefillReplica(
            env,
            PrefillEngine(workload, StaticOrder(part), engine, _empty_cache(setup)),
            *pricing,
            keep_timeline=record_timeline,
        )
        for part in contiguous(order, split.prefill, computed)
    ]
    decode = [
        DecodeReplica(
            env,
            DecodeEngine(
                workload, engine, _empty_cache(setup), _single_steps(setup, record_timeline)
            ),
            *pricing,
            keep_timeline=record_timeline,
        )
        for _ in range(split.decode)
    ]
    outcome = run_pools(env, workload, prefill, decode, link, progress)
    return [*prefill, *decode], outcome


def _tagged(
    on_step: Callable[[StepRow], None] | None, replica: int, replicas: int
) -> Callable[[StepRow], None] | None:
    """Add the replica to each row when there are several."""
    if on_step is None or replicas == 1:
        return on_step
    return lambda row: on_step({"replica": replica, **row})


def _summed(
    progress: Progress | None, replicas: Sequence[Replica], total: int
) -> Callable[[int], None] | None:
    if progress is None:
        return None
    return lambda _: progress(sum(r.core.finished for r in replicas), total)


def _single_steps(setup: Setup, record_timeline: bool) -> bool:
    """Blocks held within a run of steps are only known to the token."""
    return record_timeline and setup.engine.block_size > 1


def _empty_cache(setup: Setup) -> KVCache:
    engine = setup.engine
    caching, retain = engine.enable_prefix_caching, engine.prefix_retention == "lru"
    if engine.block_size == 1:
        return RadixCache(setup.workload, setup.blocks, caching=caching, retain=retain)
    return BlockCache(
        setup.workload, setup.blocks, engine.block_size, caching=caching, retain=retain
    )
