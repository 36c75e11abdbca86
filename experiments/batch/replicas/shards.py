"""Split requests into shards, so that all replicas have equal loads."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bssim.experiments.batch.run_lengths import FloatArray, IntArray, Observed, RunLengths
from bssim.experiments.batch.run_pool import Pool
from bssim.experiments.batch.run_results import FinishedRows
from bssim.sim.lengths import OutputEstimates
from bssim.sim.schedulers.blendserve import Loads, UnitSeconds, request_loads

UNORDERED = ("fcfs", "random")
"""Orders that ignore prefixes. Their requests are dealt in turn, as `bssim plan --dp` does."""
LEAST_LEFT = 0.25
"""A running request has at least this share of its expected output left."""
Running = Sequence[Mapping[int, int]]
"""For each replica, the tokens that each of its admitted rows has generated."""


def split(
    pool: Pool,
    rows: Sequence[int],
    finished: FinishedRows,
    running: Running,
    scheduler: str,
    seed: int,
) -> list[list[int]]:
    """Split ``rows`` of a pool among the replicas of ``running``, as `bssim plan --dp` splits.

    Each gets a run of the depth-first order, so that a shared prefix is computed on few replicas.
    A request's load is its share of all tokens to compute plus its share of all KV tokens to read,
    which needs no description of the machine. A replica with little left to do for its running
    requests gets more. Output lengths come from finished requests, from running ones (which are
    longer than what they have generated) and from caps.
    """
    among = np.zeros(len(pool.indices), dtype=np.bool_)
    among[list(rows)] = True
    estimates = _estimates(pool, finished, running, seed)
    loads = request_loads(pool.workload, estimates, UnitSeconds(1.0, 1.0), among)
    share: FloatArray = loads.compute_s / loads.compute_s.sum()
    share += loads.memory_s / loads.memory_s.sum()
    busy = np.array([_left(pool, estimates, of, loads) for of in running])
    wanted = np.maximum((share.sum() + busy.sum()) / len(running) - busy, 0.0)
    until = np.cumsum(wanted) / wanted.sum()
    if scheduler in UNORDERED:
        order = np.flatnonzero(among)
        owner = _in_turn(np.diff(np.rint(until * len(order)).astype(np.int64), prepend=0))
    else:
        order = pool.workload.dfs_order
        order = order[among[order]]
        before = np.cumsum(share[order]) - share[order]
        owner = np.searchsorted(until[:-1], before / share.sum(), side="right")
    return [order[owner == k].tolist() for k in range(len(running))]


def _estimates(pool: Pool, finished: FinishedRows, running: Running, seed: int) -> OutputEstimates:
    """Return the expected output lengths."""
    seen = pool.observed(finished)
    more = [(row, tokens) for of in running for row, tokens in of.items() if tokens]
    rows, tokens = np.array(more, dtype=np.int64).reshape(-1, 2).T
    lengths = RunLengths(pool.workload, np.random.default_rng(seed))
    estimates, _ = lengths.estimate(
        Observed(
            np.concatenate([seen.rows, rows]),
            np.concatenate([seen.output_tokens, tokens]),
            np.concatenate([seen.ended, np.zeros(len(rows), dtype=np.bool_)]),
        )
    )
    return estimates


def _left(
    pool: Pool, estimates: OutputEstimates, running: Mapping[int, int], loads: Loads
) -> float:
    """Return the load that running requests have left, in the unit of a request's load."""
    rows = np.fromiter(running, dtype=np.int64)
    generated = np.fromiter(running.values(), dtype=np.float64)
    mean = estimates.mean[rows]
    left = np.maximum(mean - generated, LEAST_LEFT * mean)
    reads = left * (pool.workload.prompt_tokens[rows] + generated) + left * left / 2
    return float(left.sum() / loads.compute_s.sum() + reads.sum() / loads.memory_s.sum())


def _in_turn(counts: IntArray) -> npt.NDArray[np.int64]:
    """Return the replicas in turn, each as often as ``counts`` says, spread evenly."""
    at = np.concatenate([(np.arange(count) + 0.5) / max(count, 1) for count in counts])
    replicas = np.repeat(np.arange(len(counts)), counts)
    turns: IntArray = replicas[np.argsort(at, kind="stable")]
    return turns
