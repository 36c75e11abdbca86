"""Run an order with prefill/decode disaggregation, on a pool of replicas for each."""

from dataclasses import replace

import numpy as np
import simpy

from bssim.errors import InputError
from bssim.sim.cluster.decode_engine import DecodeEngine
from bssim.sim.cluster.disaggregation import Disaggregation, KVLink
from bssim.sim.cluster.fleet import Fleet
from bssim.sim.cluster.pools import DecodeProcess, PrefillProcess, run_pools
from bssim.sim.cluster.replica import Replica
from bssim.sim.engine.core import EngineCore
from bssim.sim.engine.requests import RequestColumns
from bssim.sim.result import Outcome
from bssim.sim.schedulers.interface import Plan
from bssim.sim.schedulers.partition import contiguous
from bssim.sim.schedulers.static_order import StaticOrder
from bssim.sim.workload.prefix_tree import infinite_cache_hits


def run_disaggregated(
    fleet: Fleet, plan: Plan, split: Disaggregation, link: KVLink
) -> tuple[list[Replica], Outcome]:
    """Run the order of ``plan``, made for one replica, on prefill and decode replicas.

    The order is cut into one run per prefill replica with equal numbers of uncached prompt tokens,
    which keeps neighbours with a shared prefix together. A prefill replica samples the first output
    token of each prompt. Raises InputError if the policy is not a fixed order.
    """
    workload, engine = fleet.setup.workload, fleet.setup.engine
    (policy,) = plan.policies
    if not isinstance(policy, StaticOrder):
        raise InputError(
            "scheduler",
            f"one without a fixed order with disaggregation {split}",
            "an order that is fixed before the run",
        )
    order = policy.remaining()
    hits = infinite_cache_hits(workload.tree, workload.node, workload.prompt_tokens, order)
    computed = (workload.prompt_tokens - hits).astype(np.float64)
    one_token = replace(workload, output_tokens=np.ones_like(workload.output_tokens))
    columns = RequestColumns(one_token)
    env = simpy.Environment()
    prefill = []
    for part in contiguous(order, split.prefill, computed):
        core = EngineCore(
            columns,
            StaticOrder(part),
            engine,
            fleet.cache(),
            keeps_finished=True,
            windowed=fleet.setup.windowed,
        )
        prefill.append(PrefillProcess(env, fleet.replica(core)))
    decode = []
    for _ in range(split.decode):
        decoder = DecodeEngine(fleet)
        decode.append(DecodeProcess(env, decoder, fleet.replica(decoder.core)))
    outcome = run_pools(env, workload, prefill, decode, link, fleet.progress)
    return [p.replica for p in prefill] + [d.replica for d in decode], outcome
