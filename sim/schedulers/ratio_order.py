"""Which requests `ratio` packs, and the order in which the others are paced."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bssim.sim.schedulers.resource_tree import Loads, density_order
from bssim.sim.workload.workload import Workload

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def is_packed(loads: Loads, among: BoolArray) -> BoolArray:
    """Return which requests are bound by memory: alone, and against the pool they are in."""
    root = loads.compute_s[among].sum() / max(float(loads.memory_s[among].sum()), 1e-300)
    return among & (loads.compute_s < min(float(root), 1.0) * loads.memory_s)


def paced_order(workload: Workload, loads: Loads, among: BoolArray) -> IntArray:
    """Return the requests in `among` depth-first, memory-intensive prefixes first.

    Requests of one node count as its mean: sorted by their own outputs, the longest of them would
    run together and fill the room that paced requests have.
    """
    node = workload.node
    count = np.maximum(np.bincount(node[among], minlength=workload.tree.num_nodes), 1)

    def averaged(values: FloatArray) -> FloatArray:
        sums = np.bincount(node[among], values[among], workload.tree.num_nodes)
        return np.asarray((sums / count)[node])

    mean = replace(loads, compute_s=averaged(loads.compute_s), memory_s=averaged(loads.memory_s))
    return density_order(workload, mean, among, ascending=True)
