"""Data parallelism: assign the requests of an order to replicas."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

RUNS_PER_REPLICA = 64
"""Number of runs per replica in `dealt`, enough to spread the longest requests."""


def round_robin(order: IntArray, replicas: int) -> list[IntArray]:
    """Assign requests to replicas in turn."""
    return [order[k::replicas] for k in range(replicas)]


def contiguous(order: IntArray, replicas: int, load: FloatArray) -> list[IntArray]:
    """Cut the order into runs of equal load, which keeps neighbours with a shared prefix together.

    ``load``: shape (n,), per request (not per position), non-negative.
    """
    total = np.concatenate([[0.0], np.cumsum(load[order])])  # before each place to cut
    edges = np.searchsorted(total, total[-1] * np.arange(1, replicas) / replicas)
    return np.split(order, edges)


def dealt(
    order: IntArray, replicas: int, compute_s: FloatArray, memory_s: FloatArray
) -> list[IntArray]:
    """Deal runs of a density order to the replicas, so that each replica gets every density.

    BlendServe section 5.4 cuts one tree into partitions balanced in both resources. One cut from
    each end would balance the sums, but give all the longest outputs to one replica, whose tail
    would set the makespan. Therefore the order is cut into many runs of equal load (the sum of each
    resource's share of its total), which are dealt back and forth (0 1 2 2 1 0 ...). Each part
    keeps the order. The cost: a prefix is computed once on each replica whose runs share it.
    """
    tiny = np.finfo(np.float64).tiny
    share = compute_s / max(compute_s.sum(), tiny) + memory_s / max(memory_s.sum(), tiny)
    middle = np.cumsum(share[order]) - share[order] / 2
    runs = RUNS_PER_REPLICA * replicas
    run = np.minimum((middle * runs / max(middle[-1], tiny)).astype(np.int64), runs - 1)
    _, run = np.unique(run, return_inverse=True)  # a request longer than a run leaves gaps
    turn, place = np.divmod(run, replicas)
    owner = np.where(turn % 2 == 0, place, replicas - 1 - place)
    return [order[owner == k] for k in range(replicas)]
