"""The resource-aware prefix tree (BlendServe section 5.1-5.2): densities, sort, split, merge.

All steps are arithmetic on the arrays of the tree. The result is an order of requests,
compute-intensive first, and their loads. The tree itself does not change: a moved leaf counts as a
leaf under the root.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bssim.cost_models.step_cost import CostModel, StepWork
from bssim.sim.lengths import OutputEstimates
from bssim.sim.workload import PrefixTree, Workload

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


_LEAST_UNIT_S = 1e-15
"""Less than a token takes on any GPU."""


@dataclass(frozen=True, slots=True)
class UnitSeconds:
    """Seconds of one unit of each resource at the cost model's best efficiency."""

    compute_s: float
    """Per token computed."""
    memory_s: float
    """Per KV token read by decode attention."""

    @classmethod
    def of(cls, cost_model: CostModel) -> "UnitSeconds":
        """Price one prefill token (without attention, as in the paper) and one KV read."""
        token = StepWork(prefill_tokens=1.0)
        read = StepWork(decode_context_tokens=1.0)
        # a fitted model may price either at 0, and densities divide by both
        return cls(
            max(float(cost_model.ideal_cost(token).compute_s), _LEAST_UNIT_S),
            max(float(cost_model.ideal_cost(read).memory_s), _LEAST_UNIT_S),
        )


@dataclass(frozen=True, eq=False)
class Loads:
    """The expected cost of each request; arrays of shape (n,), 0 for excluded requests."""

    prefill_tokens: FloatArray
    """Private prompt tokens, plus an equal part of every shared segment above."""
    output_tokens: FloatArray
    compute_s: FloatArray
    """Comp(r) of paper section 4 with sharing counted: prefill and decode tokens."""
    memory_s: FloatArray
    """Mem(r): KV reads p d + d^2 / 2, from first and second moments."""
    kv_token_steps: FloatArray
    """The same in KV tokens times steps."""


def request_loads(
    workload: Workload,
    estimates: OutputEstimates,
    unit: UnitSeconds,
    among: npt.NDArray[np.bool_] | None = None,
) -> Loads:
    """Return the expected loads of the requests in `among` (default: all)."""
    tree, node = workload.tree, workload.node
    mask = np.ones(len(workload), np.bool_) if among is None else among
    here = np.concatenate([[0], np.cumsum(np.bincount(node[mask], minlength=tree.num_nodes))])
    below = here[tree.subtree_end] - here[np.arange(tree.num_nodes)]
    part = tree.segment_tokens / np.maximum(below, 1)
    shared = np.zeros(tree.num_nodes)
    for nodes, parents in tree.levels:
        shared[nodes] = shared[parents] + part[nodes]
    p = workload.prompt_tokens.astype(np.float64)
    prefill = (p - tree.depth_tokens[node] + shared[node]) * mask
    d, second = estimates.mean * mask, estimates.second_moment * mask
    reads = p * d + second / 2
    return Loads(
        prefill_tokens=prefill,
        output_tokens=d,
        compute_s=(prefill + d) * unit.compute_s,
        memory_s=reads * unit.memory_s,
        kv_token_steps=reads,
    )


def density_order(
    workload: Workload,
    loads: Loads,
    among: npt.NDArray[np.bool_] | None = None,
    *,
    moved: IntArray | None = None,
    ascending: bool = False,
) -> IntArray:
    """Return the requests depth-first, with the children of every node sorted by density.

    Children are both subtrees and leaves, compute-intensive first unless `ascending`. ``moved``
    requests are leaves of the root. Those between the same two neighbours are grouped by their
    original prefix, so that each group still computes its prefix once.
    """
    tree, n = workload.tree, len(workload)
    requests = np.arange(n) if among is None else np.flatnonzero(among)
    home = workload.node.astype(np.int64)
    if moved is not None and len(moved):
        home = home.copy()
        home[moved] = 0
    at = home[requests]
    seconds = loads.compute_s[requests], loads.memory_s[requests]
    density = np.concatenate([subtree_densities(tree, at, *seconds), density_of(*seconds)])
    return depth_first(workload, requests, at, density if ascending else -density, moved)


def density_of(compute_s: FloatArray, memory_s: FloatArray) -> FloatArray:
    """Return compute seconds divided by memory seconds; without memory time, it is infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(compute_s / np.maximum(memory_s, np.finfo(np.float64).tiny))


def subtree_densities(
    tree: PrefixTree, at: IntArray, compute_s: FloatArray, memory_s: FloatArray
) -> FloatArray:
    """Return the density of every node except the root, shape (nodes - 1,).

    ``compute_s``, ``memory_s``: the loads of requests at nodes ``at``.
    """
    return density_of(_below(tree, at, compute_s)[1:], _below(tree, at, memory_s)[1:])


def depth_first(
    workload: Workload,
    requests: IntArray,
    at: IntArray,
    key: FloatArray,
    moved: IntArray | None = None,
) -> IntArray:
    """Return the requests depth-first, with the children of every node sorted by key.

    ``at``: the node of each of ``requests``. ``key``: a value for every node except the root, then
    for every request. ``moved``: see `density_order`.
    """
    tree = workload.tree
    m = tree.num_nodes
    size = _below(tree, at, np.ones(len(requests))).astype(np.int64)
    above = np.concatenate([tree.parent[1:].astype(np.int64), at])
    sizes = np.concatenate([size[1:], np.ones(len(requests), np.int64)])
    by = _lexsort(key, above, m)
    if moved is not None and len(moved):
        by = _merge_moved(by, above, m - 1, requests, moved, workload)
    # Start of each item inside its parent's range, then absolute, parents first.
    owner = above[by]
    begins = np.cumsum(sizes[by]) - sizes[by]
    new_owner = np.flatnonzero(np.diff(owner, prepend=-1))
    in_owner = np.diff(new_owner, append=len(by))
    start = np.empty(len(by), np.int64)
    start[by] = begins - np.repeat(begins[new_owner], in_owner)
    origin = np.zeros(m, np.int64)
    for nodes, parents in tree.levels:
        origin[nodes] = origin[parents] + start[nodes - 1]
    order = np.empty(len(requests), np.int64)
    order[start[m - 1 :] + origin[at]] = requests
    return order


def _below(tree: PrefixTree, at: IntArray, values: FloatArray) -> FloatArray:
    """Return the sum over every subtree of values of requests at nodes ``at``."""
    sums = np.concatenate([[0.0], np.cumsum(np.bincount(at, values, tree.num_nodes))])
    return np.asarray(sums[tree.subtree_end] - sums[np.arange(tree.num_nodes)])


def _lexsort(key: FloatArray, group: IntArray, groups: int) -> IntArray:
    """Return ``np.lexsort((key, group))``, faster."""
    by = _stable_argsort(key)
    return np.asarray(by[argsort_few(group[by], groups)])


def argsort_few(values: IntArray, limit: int) -> IntArray:
    """Return ``np.argsort(values, kind="stable")`` for values in 0 .. ``limit`` - 1."""
    narrow = np.int16 if limit <= np.iinfo(np.int16).max else np.int64
    return np.argsort(values.astype(narrow), kind="stable")  # 16 bit: by radix, which is fast


def _stable_argsort(key: FloatArray) -> IntArray:
    """Return ``np.argsort(key, kind="stable")``, faster: numpy's default sort is vectorised."""
    by = np.argsort(key)
    ordered = key[by]
    # equal keys are one run, in any order so far: sort the positions within the runs
    run = np.zeros(len(key), np.int64)
    np.cumsum(ordered[1:] != ordered[:-1], out=run[1:])
    run *= len(key)
    by += run
    by.sort()
    return np.asarray(by - run)


def _merge_moved(
    by: IntArray,
    above: IntArray,
    first_leaf: int,
    requests: IntArray,
    moved: IntArray,
    workload: Workload,
) -> IntArray:
    """Group neighbouring moved leaves under the root by their original prefix."""
    is_moved = np.zeros(len(workload), np.bool_)
    is_moved[moved] = True
    item_moved = np.zeros(len(by), np.bool_)
    item_moved[first_leaf:] = is_moved[requests]
    prefix = np.zeros(len(by), np.int64)
    prefix[first_leaf:] = workload.node[requests]
    prefix[~item_moved] = -1
    fixed = ~item_moved[by]
    gap = 2 * np.cumsum(fixed) - fixed  # odd: one fixed item; even: the moved ones after it
    return np.asarray(by[np.lexsort((np.arange(len(by)), prefix[by], gap))])


def split_outliers(
    workload: Workload,
    loads: Loads,
    order: IntArray,
    budget_tokens: float,
) -> IntArray:
    """Return the leaves to move under the root so that leaf densities fall along the order.

    Paper section 5.2: a leaf that breaks the order is cut from its parent if the prefix that it
    then recomputes fits the rest of the threshold. Each leaf moves at most once. The misplacement
    of a leaf is the load between its place in the tree and the place that fits its density. Moves
    that correct the most load per recomputed token come first.
    """
    compute, memory = loads.compute_s[order], loads.memory_s[order]
    density = compute / np.maximum(memory, np.finfo(np.float64).tiny)
    sorted_ = np.argsort(-density, kind="stable")
    load = compute + memory
    along = np.cumsum(load) - load / 2
    belongs = np.empty(len(order))
    belongs[sorted_] = np.cumsum(load[sorted_]) - load[sorted_] / 2
    depth = workload.tree.depth_tokens[workload.node[order]]
    # Less than one percent of the total load is no misplacement, because subtrees have a width.
    off = np.abs(along - belongs) / max(float(load.sum()), np.finfo(np.float64).tiny)
    candidate = np.flatnonzero((depth > 0) & (off > 0.01))
    worth = off[candidate] * load[candidate] / depth[candidate]
    best = candidate[np.argsort(-worth, kind="stable")]
    spent = np.cumsum(depth[best])
    return np.asarray(order[best[spent <= budget_tokens]], dtype=np.int64)
