"""Data parallelism: which requests of an order each replica serves."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


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


def two_ended(
    order: IntArray, replicas: int, compute_s: FloatArray, memory_s: FloatArray
) -> list[IntArray]:
    """Cut a density order from both ends so that each part has its share of both resources.

    BlendServe section 5.4: the dual scan of one tree hands each replica a compute-intensive run
    from the left and a memory-intensive run from the right. With compute and memory falling and
    rising along the order there is one such pair; what cannot be matched exactly is balanced in
    the larger of the two.
    """
    parts: list[IntArray] = []
    rest = order
    for left in range(replicas, 1, -1):
        compute = np.concatenate([[0.0], np.cumsum(compute_s[rest])])
        memory = np.concatenate([[0.0], np.cumsum(memory_s[rest])])
        want_c, want_m = compute[-1] / left, memory[-1] / left
        # For a left run [0, a) the right run [b, n) that completes the memory; b falls as a grows.
        a = np.arange(len(rest) + 1)
        b = np.searchsorted(memory, memory[-1] - np.maximum(want_m - memory, 0.0), side="left")
        b = np.maximum(b, a)
        got = compute + compute[-1] - compute[b]
        cut = int(np.argmin(np.abs(got - want_c)))
        parts.append(np.concatenate([rest[:cut], rest[b[cut] :]]))
        rest = rest[cut : b[cut]]
    parts.append(rest)
    return parts
