"""Conditional node split: how many leaves move, and what sharing that costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.experiments.markdown import markdown_table
from bssim.experiments.result_pages.reproduction.four_traces import COST_MODEL
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import percent, within
from bssim.experiments.sweeps import Results, WorkloadRef, build_workload
from bssim.sim.lengths import make_estimator
from bssim.sim.schedulers.blendserve import SHARING_KEPT, UnitSeconds, blend
from bssim.sim.workload import DEFAULT_NUM_REQUESTS, TRACES, PrefixTree, Workload

LEAST_MOVED, MOST_MOVED = 0.001, 0.01
"""The paper's share of leaves that move."""

TEXT = """
BlendServe plans each whole trace ({requests:,} requests) with the lengths that its finished
sample gives, and with the true lengths. Leaves whose density breaks the order are cut from their
subtree as long as the prefixes to compute again stay within 1 % of the sharing. The sharing of an
order is measured with the smallest possible cache: what each request shares with the one before
it.

{table}

At most {worst:.2%} of the sharing is given up (paper: 1 %). The share of leaves does not
distinguish the plans, because it is the 1 % of sharing divided by the prefix length of what
moves. With sampled lengths, only MMLU questions move. Their prefixes are hundreds of tokens long,
and on traces 3 and 4, which have little sharing to spend, a few dozen of them spend the 1 %. With
true lengths, BurstGPT requests move on traces 1 and 2. Each gives up 5 tokens (a system prompt
that the paper does not describe and our recipe makes this short), and they merge again into one
run by their prefix, so almost nothing is lost.
"""


@dataclass(frozen=True, slots=True)
class Split:
    """The effect of the node splits of one plan."""

    moved: float
    """Share of leaves moved under the root."""
    prefix_tokens: float
    """Mean prefix of the moved leaves; 0 if none moved."""
    given_up: float
    """Share of the sharing lost."""


class Splitting:
    """Leaves moved and sharing given up on the four traces."""

    name = "splitting"
    title = "Node splits: leaves moved, sharing given up"

    def __init__(self, num_requests: int = DEFAULT_NUM_REQUESTS) -> None:
        """``num_requests``: requests of each trace."""
        self.num_requests = num_requests

    def sweeps(self, full: bool) -> Sequence[str]:
        """Read no sweep: the study needs only the plan."""
        return ()

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        claims, worst = [], 0.0
        columns = ["trace", "lengths", "leaves moved", "their mean prefix (tokens)"]
        columns.append("sharing given up")
        rows = []
        for trace in TRACES:
            pool = build_workload(WorkloadRef(trace, self.num_requests, seed=0))
            for lengths in ("sampled", "oracle"):
                found = split(pool, lengths)
                worst = max(worst, found.given_up)
                numbers = (f"{found.moved:.2%}", f"{found.prefix_tokens:,.0f}")
                rows.append((trace, lengths, *numbers, f"{found.given_up:.2%}"))
                if lengths == "sampled":  # what the paper's scheduler knows
                    claims += _claims(self.name, trace, found)
        table = "\n".join(markdown_table(columns, rows, "ll"))
        return Chapter(claims, TEXT.format(requests=self.num_requests, table=table, worst=worst))


def _claims(study: str, trace: str, found: Split) -> list[Claim]:
    return [
        Claim(
            f"{study}.{trace}.moved",
            f"{trace}: share of leaves that move",
            f"{percent(LEAST_MOVED)} to {percent(MOST_MOVED)}",
            f"{found.moved:.2%}",
            f"the 1 % of sharing is spent on prefixes of {found.prefix_tokens:,.0f} tokens",
            holds=within(found.moved, LEAST_MOVED, MOST_MOVED),
        ),
        Claim(
            f"{study}.{trace}.sharing_given_up",
            f"{trace}: share of the sharing given up",
            "at most 1%",
            f"{found.given_up:.2%}",
            holds=within(found.given_up, high=1 - SHARING_KEPT),
        ),
    ]


def split(workload: Workload, output_lengths: str) -> Split:
    """Plan like BlendServe, with a finished sample, and return the effect of its node splits."""
    unit = UnitSeconds.of(
        make_cost_model(COST_MODEL, load_llm("llama-3-8b"), load_hardware("a100-80gb"))
    )
    _, sample_rng = np.random.default_rng(0).spawn(2)
    estimates = make_estimator(output_lengths, workload, sample_rng).final()
    most = float(workload.max_cached_tokens.sum())
    everything = np.ones(len(workload), np.bool_)
    plan = blend(workload, estimates, unit, everything, (1 - SHARING_KEPT) * most)
    prefixes = workload.shared_tokens[plan.moved]
    return Split(
        moved=len(plan.moved) / len(workload),
        prefix_tokens=float(prefixes.mean()) if len(prefixes) else 0.0,
        given_up=1.0 - neighbour_hits(workload, plan.order.order) / most,
    )


def neighbour_hits(workload: Workload, order: npt.NDArray[np.int64]) -> int:
    """Return the prompt tokens that requests share with the request before them in an order."""
    node = workload.node[order].astype(np.int64)
    shared = _common_depth(workload.tree, node[1:], node[:-1])
    # The last prompt token is always computed.
    return int(np.minimum(shared, workload.prompt_tokens[order][1:] - 1).sum())


def _common_depth(
    tree: PrefixTree, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the tokens from the root to the last common node of ``a`` and ``b``.

    Parents have smaller numbers than children, so the larger of two nodes climbs until they meet.
    """
    a, b = a.copy(), b.copy()
    while (apart := np.flatnonzero(a != b)).size:
        high, low = np.maximum(a[apart], b[apart]), np.minimum(a[apart], b[apart])
        a[apart], b[apart] = tree.parent[high], low
    return tree.depth_tokens[a]


SPLITTING = Splitting()
