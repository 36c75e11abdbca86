"""Data parallelism: which requests of an order each replica serves."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

RUNS_PER_REPLICA = 64
"""Runs that `dealt` gives each replica: enough to spread the longest requests."""


def round_robin(order: IntArray, replicas: int) -> list[IntArray]:
    """Deal the order out one by one."""
    return [order[k::replicas] for k in range(replicas)]


def contiguous(order: IntArray, replicas: int, load: FloatArray) -> list[IntArray]:
    """Cut the order into runs of equal load, which keeps neighbours and their prefix together.

    ``load``: shape (n,), per request (not per position), non-negative.
    """
    total = np.concatenate([[0.0], np.cumsum(load[order])])  # before each place to cut
    edges = np.searchsorted(total, total[-1] * np.arange(1, replicas) / replicas)
    return np.split(order, edges)


def dealt(
    order: IntArray, replicas: int, compute_s: FloatArray, memory_s: FloatArray
) -> list[IntArray]:
    """Deal runs of a density order to the replicas, so that each has its share of every density.

    BlendServe section 5.4 cuts one tree into partitions balanced in both resources. Two cuts, one
    from each end, balance the sums but give one replica all the longest outputs, and its tail is
    the makespan. So the order is cut into many runs of equal load, both resources counted as
    shares of their totals, and dealt forth and back (0 1 2 2 1 0 ...). Each part keeps the order;
    what it costs is one computation a replica of the prefixes that several of its runs share.
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
