"""Split the requests that are left into shards of equal load."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bssim.experiments.batch.replicas.replica import Shard
from bssim.experiments.batch.run_lengths import FloatArray, RunLengths
from bssim.experiments.batch.run_lines import CheckedBatch, Line, read_lines
from bssim.experiments.batch.run_pool import Pool
from bssim.experiments.batch.run_results import FinishedRows
from bssim.sim.schedulers import contiguous, round_robin
from bssim.sim.schedulers.blendserve import UnitSeconds, request_loads

UNORDERED = ("fcfs", "random")
"""Orders that ignore prefixes. Their requests are dealt in turn, as `bssim plan --dp` does."""


def split(pool: Pool, finished: FinishedRows, parts: int, scheduler: str, seed: int) -> list[Pool]:
    """Return at most ``parts`` pools with the requests that are left, as `bssim plan --dp` splits.

    Each gets a run of the depth-first order, so that a shared prefix is computed on few replicas.
    Runs have equal loads: a request's load is its share of all tokens to compute plus its share of
    all KV tokens to read, which needs no description of the machine. Output lengths come from
    finished requests and caps. Finished requests have no load; they go to the replica that serves
    their neighbours, to show it output lengths.
    """
    left = np.zeros(len(pool.indices), dtype=np.bool_)
    left[pool.left] = True
    if scheduler in UNORDERED:
        cut = round_robin(np.flatnonzero(left), parts)
    else:
        cut = contiguous(pool.workload.dfs_order, parts, _loads(pool, left, finished, seed))
    return [pool.part(rows) for rows in cut if left[rows].any()]


def _loads(
    pool: Pool, left: npt.NDArray[np.bool_], finished: FinishedRows, seed: int
) -> FloatArray:
    """Return the expected load of each request, shape (rows,); 0 if it is not ``left``."""
    lengths = RunLengths(pool.workload, np.random.default_rng(seed))
    estimates, _ = lengths.estimate(pool.observed(finished))
    loads = request_loads(pool.workload, estimates, UnitSeconds(1.0, 1.0), left)
    share: FloatArray = loads.compute_s / loads.compute_s.sum()
    share += loads.memory_s / loads.memory_s.sum()
    return share


def with_lines(
    pools: Sequence[Pool], file: CheckedBatch, finished: FinishedRows
) -> Iterator[Shard]:
    """Yield each pool with the lines of its requests that are left, read from the batch file."""
    owner = {pool.indices[row]: k for k, pool in enumerate(pools) for row in pool.left}
    lines: list[list[Line]] = [[] for _ in pools]
    for line in read_lines(file):
        if line.index in owner:
            lines[owner[line.index]].append(line)
    for pool, own in zip(pools, lines, strict=True):
        yield Shard(pool, own, {i: finished.rows[i] for i in pool.indices if i in finished.rows})
