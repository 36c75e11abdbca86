"""Which requests `ratio` packs, and the order of the others."""

import numpy as np
import numpy.typing as npt

from bssim.sim.schedulers.blendserve import (
    Loads,
    argsort_few,
    density_of,
    depth_first,
    subtree_densities,
)
from bssim.sim.schedulers.ratio.options import paced_share
from bssim.sim.workload import Workload

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def is_packed(workload: Workload, loads: Loads, among: BoolArray) -> BoolArray:
    """Return which requests of `among` grow and are bound by memory.

    A request is bound by memory if its density is less than 1 and less than that of the pool. It
    grows if its output is longer than its prompt. A request that does not grow holds most of its
    KV from the start. If it fits now, it fits later, so only the time of its prefill matters.
    """
    root = loads.compute_s[among].sum() / max(float(loads.memory_s[among].sum()), 1e-300)
    grows = loads.output_tokens > workload.prompt_tokens
    return among & grows & (loads.compute_s < min(float(root), 1.0) * loads.memory_s)


def is_crowded(workload: Workload, loads: Loads, among: BoolArray, known: bool) -> bool:
    """Return whether paced requests need more than their share of all KV reads.

    If so, they do not fit into their reserved room while packed requests run, and KV limits how
    fast they can be computed.
    """
    reads = loads.kv_token_steps
    paced = reads[among & ~is_packed(workload, loads, among)].sum()
    return float(paced) > paced_share(known) * float(reads[among].sum())


def paced_order(workload: Workload, loads: Loads, among: BoolArray) -> IntArray:
    """Return the requests in `among` depth-first, memory-intensive prefixes first.

    Requests of one node all count with the mean of the node. If they were sorted by their own
    outputs, the longest ones would run together and fill the room of paced requests. It is
    therefore enough to sort the nodes.
    """
    tree, requests = workload.tree, np.flatnonzero(among)
    at = workload.node[requests].astype(np.int64)
    count = np.bincount(at, minlength=tree.num_nodes)

    def averages(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(at, values[requests], tree.num_nodes) / np.maximum(count, 1))

    compute, memory = averages(loads.compute_s), averages(loads.memory_s)
    subtrees = subtree_densities(tree, at, compute[at], memory[at])
    homes = np.flatnonzero(count)  # nodes with requests
    key = np.append(subtrees, density_of(compute[homes], memory[homes]))
    nodes = depth_first(workload, homes, homes, key)
    place = np.zeros(tree.num_nodes, np.int64)
    place[nodes] = np.arange(len(nodes))
    return requests[argsort_few(place[at], tree.num_nodes)]


def kin_first(workload: Workload, order: IntArray, sample: IntArray) -> IntArray:
    """Return an order in which small subtrees with sampled requests come first.

    Their prefix is still in the KV cache; later it would have to be computed again. In a subtree
    larger than the whole sample, this makes no difference.
    """
    if not len(sample):
        return order
    tree = workload.tree
    small = workload.requests_below <= len(sample)
    top = np.arange(tree.num_nodes)  # the largest small subtree around each node
    for nodes, parents in tree.levels:
        top[nodes] = np.where(small[parents] & (parents > 0), top[parents], nodes)
    sampled = np.zeros(tree.num_nodes, np.bool_)
    sampled[top[workload.node[sample]]] = True
    kin = (sampled & small)[top[workload.node[order]]]
    kin &= workload.node[order] > 0
    return np.concatenate([order[kin], order[~kin]])


def random_order(
    workload: Workload, among: BoolArray, rng: np.random.Generator, *, prefix_groups: bool
) -> IntArray:
    """Return the requests in `among` in random order; `prefix_groups` keeps subtrees together."""
    requests = np.flatnonzero(among)
    if not prefix_groups:
        return rng.permutation(requests)
    key = rng.random(workload.tree.num_nodes - 1 + len(requests))
    return depth_first(workload, requests, workload.node[requests].astype(np.int64), key)
