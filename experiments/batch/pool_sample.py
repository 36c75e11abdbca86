"""A sample of a large pool, in which orders compare as they do in the whole pool.

What an order is worth depends on what requests share, so the sample consists of whole prefix
groups. A request that shares its prefix with a large part of the pool is a group of its own. Groups
are drawn at equal distances from a sorted list, so each kind of request keeps its share.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from bssim.experiments.batch.comparison import AUTO, OWN, Comparison, OrderResult, ranked
from bssim.experiments.batch.lengths import Lengths
from bssim.experiments.batch.serving import Serving
from bssim.experiments.batch.trials import Progress, Trials
from bssim.sim.workload import Workload, select

IntArray = npt.NDArray[np.int64]

REQUEST_US, PROMPT_TOKEN_US, OUTPUT_TOKEN_US = 12.0, 0.02, 0.15
"""CPU time of a simulation: measured on the twelve kinds of files of the `batches` study when the
KV cache is full. If it is not full, simulations take less."""
WHOLE_S = 5.0
"""A pool is sampled if one simulation is expected to take more CPU seconds than this."""
SAMPLE_S = 2.0
"""The expected CPU seconds of a simulation of the sample."""
CHECK_S = 12.0
"""Most CPU seconds of a simulation of the whole pool for which `compare` also simulates the chosen
order with the whole pool."""
LEAST_REQUESTS = 1000
"""The fewest requests of a sample."""
LEAST_GROUPS = 50
"""A prefix group must be smaller than the sample by this factor to be kept whole."""


def simulation_s(pool: Workload, output_tokens: IntArray) -> float:
    """Return the CPU seconds that one simulation is expected to take at most."""
    micros = (
        REQUEST_US * len(pool)
        + PROMPT_TOKEN_US * float(pool.prompt_tokens.sum())
        + OUTPUT_TOKEN_US * float(output_tokens.sum())
    )
    return micros / 1e6


@dataclass(frozen=True, eq=False)
class PoolSample:
    """Some requests of a pool."""

    rows: IntArray
    """Shape (sampled,): rows of the pool, ascending."""
    workload: Workload
    lengths: Lengths

    @classmethod
    def of(cls, pool: Workload, lengths: Lengths) -> Self | None:
        """Return the sample of a pool, or None if the pool is small enough to simulate it whole."""
        outputs = lengths.scenarios[lengths.main]
        seconds = simulation_s(pool, outputs)
        count = max(LEAST_REQUESTS, round(len(pool) * SAMPLE_S / seconds))
        if seconds <= WHOLE_S or count >= len(pool):
            return None
        rows = sampled_rows(pool, outputs, count)
        return cls(rows, select(pool, rows), lengths.of_rows(rows))

    def comparison_of_whole(
        self,
        found: Comparison,
        pool: Workload,
        lengths: Lengths,
        serving: Serving,
        write: str | None,
        progress: Progress | None,
    ) -> Comparison:
        """Return the comparison of a sample as one of the whole pool.

        Seconds are scaled by the lower bounds of both. The chosen order and the file's own are
        simulated with the whole pool if that takes at most `CHECK_S`, or if the chosen order is to
        be written; see `compare_pool` for ``write``.
        """
        outputs = lengths.scenarios[lengths.main]
        whole_bound = serving.bound_s(replace(pool, output_tokens=outputs))
        tokens = float(pool.prompt_tokens.sum() + outputs.sum())

        def scaled(order: OrderResult, seconds: float) -> OrderResult:
            return replace(
                order,
                makespan_s=seconds,
                throughput_tok_s=tokens / seconds,
                share_of_bound=whole_bound / seconds,
                order=serving.file_order(pool, OWN) if order.scheduler == OWN else None,
                sampled=True,
            )

        orders = [scaled(o, whole_bound / o.share_of_bound) for o in found.orders]
        found = replace(found, orders=ranked(orders), sample_requests=len(self.rows))
        if write is None:
            chosen = found.choice
        elif write == AUTO:
            chosen = found.best_file
        else:
            chosen = next(o for o in found.orders if o.scheduler == write)
        must = write is not None and chosen is not found.own
        if not must and simulation_s(pool, outputs) > CHECK_S:
            return found
        trials = Trials(pool, lengths, serving, progress)
        names = list(dict.fromkeys((OWN, chosen.scheduler)))
        whole = {
            (t.scheduler, t.mode): t for t in trials.main(names, file_only=chosen.mode == "file")
        }
        own = whole[OWN, "file"]
        checked = []
        for order in found.orders:
            trial = whole.get((order.scheduler, order.mode))
            if trial is None:
                checked.append(scaled(order, own.makespan_s / order.speedup))
            else:
                speedups = {**order.scenarios, lengths.main: own.makespan_s / trial.makespan_s}
                checked.append(trial.result(speedups))
        return replace(found, orders=ranked(checked))


def sampled_rows(pool: Workload, output_tokens: IntArray, count: int) -> IntArray:
    """Return about ``count`` rows of a pool, in whole prefix groups, ascending.

    A group is the largest subtree of the prefix tree with at most ``count / LEAST_GROUPS``
    requests. Groups are sorted by the node above them, then by their output tokens.
    """
    tree, node = pool.tree, pool.node
    small = pool.requests_below <= max(1, count // LEAST_GROUPS)
    nodes = np.arange(tree.num_nodes)
    top = small.copy()
    top[1:] &= ~small[tree.parent[1:]]
    # Nodes are numbered in preorder: the last top before a small node is the one around it.
    around = np.maximum.accumulate(np.where(top, nodes, 0))
    alone = ~small[node]
    group = np.where(alone, tree.num_nodes + np.arange(len(pool)), around[node])
    _, first, group = np.unique(group, return_index=True, return_inverse=True)
    above = np.where(alone, node, tree.parent[around[node]])[first]
    tokens = np.bincount(group, weights=output_tokens)
    order = np.lexsort((first, tokens, above))
    share = count / len(pool)
    place = np.floor(np.arange(len(order) + 1) * share + 0.5)
    drawn = np.zeros(len(order), np.bool_)
    drawn[order] = np.diff(place) > 0
    return np.flatnonzero(drawn[group])
