"""One batch file of the suite on one engine: the time of each order with the drawn outputs."""

from dataclasses import dataclass, replace

import numpy as np

from bssim.experiments.batch import AUTO, Pool, Serving, compare_pool, from_caps
from bssim.experiments.result_pages.batches.suite import requests_of, workload_of
from bssim.sim.schedulers import Scheduler

AUTO_ORDERS = ("fcfs", "dfs", "dfs_memory_first", "dfs_compute_first", "blendserve", "ratio")
"""What ``auto`` chooses from: `random` and `lpm` never won in development."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Simulated seconds; only the caps were known beforehand."""

    kind: str
    engine: str
    sharing_max: float
    fcfs_s: float
    dfs_s: float
    auto: str
    """The order that `plan --scheduler auto` wrote."""
    auto_s: float
    ratio_s: float
    """`ratio` at run time, which learns lengths from a sample."""

    @property
    def best_s(self) -> float:
        """The better of the file's own order and depth-first."""
        return min(self.fcfs_s, self.dfs_s)


def measure(kind: str, engine: str, count: int, seed: int) -> Measured:
    """Choose an order from the caps only, then run all orders with the drawn outputs."""
    serving = Serving.of(engine=engine, seed=seed)
    requests = requests_of(kind, count, seed)
    pool = serving.fitting(workload_of(kind, requests))
    assert pool.max_tokens is not None
    planned = replace(pool, output_tokens=pool.max_tokens)
    lengths = from_caps(planned, np.random.default_rng(seed))
    auto = compare_pool(Pool(planned, lengths), serving, AUTO_ORDERS, write=AUTO).best_file
    assert auto.order is not None

    def seconds(scheduler: str | Scheduler, lengths: str) -> float:
        return serving.simulate(pool, scheduler, lengths).makespan_s

    return Measured(
        kind=kind,
        engine=engine,
        sharing_max=pool.sharing_max,
        fcfs_s=seconds("fcfs", "max_tokens"),
        dfs_s=seconds("dfs", "max_tokens"),
        auto=auto.scheduler,
        auto_s=seconds(auto.order, "max_tokens"),
        ratio_s=seconds("ratio", "survival"),
    )
