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
from bssim.sim.engine import RequestColumns
from bssim.sim.result import Outcome
from bssim.sim.schedulers import Plan, StaticOrder, contiguous
from bssim.sim.workload import infinite_cache_hits


def run_disaggregated(
    fleet: Fleet, plan: Plan, split: Disaggregation, link: KVLink
) -> tuple[list[Replica], Outcome]:
    """Run the order of ``plan``, made for one replica, on prefill and decode replicas.

    The order is cut into one run per prefill replica with equal numbers of uncached prompt tokens,
    which keeps neighbours with a shared prefix together. A prefill replica samples the first output
    token of each prompt. Raises InputError if the plan has no fixed order.
    """
    workload = fleet.setup.workload
    if not plan.orders:
        raise InputError(
            "scheduler",
            f"one without a fixed order with disaggregation {split}",
            "an order that is fixed before the run",
        )
    (order,) = plan.orders
    hits = infinite_cache_hits(workload.tree, workload.node, workload.prompt_tokens, order)
    computed = (workload.prompt_tokens - hits).astype(np.float64)
    one_token = replace(workload, output_tokens=np.ones_like(workload.output_tokens))
    columns = RequestColumns(one_token)
    env = simpy.Environment()
    prefill = []
    for part in contiguous(order, split.prefill, computed):
        replica = fleet.replica(StaticOrder(part), columns=columns, keeps_finished=True)
        prefill.append(PrefillProcess(env, replica))
    decode = []
    for _ in range(split.decode):
        # its waiting list holds only preempted requests
        replica = fleet.replica(StaticOrder(np.zeros(0, np.int64)))
        decode.append(DecodeProcess(env, DecodeEngine(replica.core), replica))
    outcome = run_pools(env, workload, prefill, decode, link, fleet.progress)
    return [p.replica for p in prefill] + [d.replica for d in decode], outcome
