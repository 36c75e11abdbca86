"""The true optimum of pools small enough for an exact search, beside bounds and schedulers."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.step_cost import OperatorCost, StepCost, StepWork
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import frame_table
from bssim.experiments.sweeps import Results
from bssim.sim.engine import EngineConfig
from bssim.sim.exact import TinyEngine, least_makespan
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload, make_workload

SCHEDULERS = ("fcfs", "dfs", "blendserve", "ratio")
OVERLAPS = ("frontier", "gamma:0.2", "sequential")
SIZES = (6, 8, 10, 12)
POOLS = 4
"""Number of pools per size."""
BUDGET, KV_TOKENS = 8, 12


class CoarseCostModel:
    """Steps coarse enough for an exact search: whole tokens of compute, reads and weight loads.

    A token computes for 1 s, a KV token is read in 0.5 s and the weights are loaded in 2 s.
    """

    name = "coarse"

    def step_cost(self, work: StepWork) -> StepCost:
        """See `CostModel.step_cost`."""
        rows = np.asarray(work.gemm_tokens, dtype=np.float64)
        reads = 0.5 * np.asarray(work.decode_context_tokens, dtype=np.float64)
        weights = np.where(rows > 0, 2.0, 0.0)
        none = np.zeros_like(rows)
        return StepCost(np.maximum(rows, weights), reads, none, none, weights + reads)

    def ideal_cost(self, work: StepWork) -> StepCost:
        """See `CostModel.ideal_cost`."""
        rows = np.asarray(work.tokens, dtype=np.float64)
        reads = 0.5 * np.asarray(work.decode_context_tokens, dtype=np.float64)
        none = np.zeros_like(rows)
        return StepCost(rows, reads, none, none, reads)

    def operators(self, work: StepWork) -> list[OperatorCost]:
        """Return nothing: a step of this model has no operators."""
        return []


class Tiny:
    """How tight the bounds are, and how close schedulers come to the true optimum."""

    name = "ratio_exact"
    title = "Tiny pools: the true optimum"

    def __init__(self, sizes: Sequence[int] = SIZES) -> None:
        """``sizes``: requests of the pools."""
        self.sizes = sizes

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return nothing: this study reads no sweep."""
        return ()

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """Return shares of the true optimum by overlap and size."""
        rng = np.random.default_rng(0)
        pools = [tiny_pool(size, rng) for size in self.sizes for _ in range(POOLS)]
        rows = [against_exact(pool, overlap) for overlap in OVERLAPS for pool in pools]
        table = pd.DataFrame(rows).groupby(["overlap", "requests"], sort=False).mean()
        means = pd.DataFrame(rows).drop(columns="requests").groupby("overlap", sort=False).mean()
        claims = [
            Claim(
                id=f"ratio_exact.{overlap}.{column}",
                what=f"{overlap}: {column} over the true optimum's time, mean"
                if column in ("practical optimum", "tightest bound")
                else f"{overlap}: true optimum over the time of {column}, mean",
                paper=None,
                ours=float(means[column][overlap]),
            )
            for overlap in OVERLAPS
            for column in means
        ]
        text = (
            f"Pools of {self.sizes[0]} to {self.sizes[-1]} requests, {POOLS} of each size; half "
            f"of the requests are all prompt and half all output. The engine has {KV_TOKENS} KV "
            f"tokens and {BUDGET} tokens per step, and steps are coarse enough for an exact "
            "search (`bssim.sim.exact`). The first two columns show how much of the true "
            "optimum the bounds explain. The others show how near schedulers with known lengths"
            " come to it. Such pools are mostly drain, so they are the hardest for any "
            "scheduler. `share_of_optimum` understates all of them by the first column, "
            "`share_of_bound` by the second.\n\n" + frame_table(table, lambda value: f"{value:.3f}")
        )
        return Chapter(claims, text)


def tiny_pool(size: int, rng: np.random.Generator) -> Workload:
    """Return a pool of prompts with one output token, and of long outputs of short prompts."""
    long = size // 2
    prompts = np.concatenate([rng.integers(1, 3, size - long), np.ones(long, np.int64)])
    outputs = np.concatenate([np.ones(size - long, np.int64), rng.integers(1, 4, long) * 2])
    order = rng.permutation(size)
    return make_workload("tiny", prompts[order].tolist(), outputs[order].tolist())


def against_exact(pool: Workload, overlap: str) -> dict[str, object]:
    """Return bounds over the true optimum, and the true optimum over every scheduler's makespan."""
    llm, hardware, cost_model = (
        load_llm("llama-3-8b"),
        load_hardware("a100-80gb"),
        CoarseCostModel(),
    )
    exact = least_makespan(
        pool.prompt_tokens.tolist(),
        pool.output_tokens.tolist(),
        TinyEngine(cost_model, parse_overlap(overlap), KV_TOKENS, BUDGET),
    ).makespan_s
    row: dict[str, object] = {"overlap": overlap, "requests": len(pool)}
    for scheduler in SCHEDULERS:
        result = simulate(
            pool,
            scheduler=scheduler,
            llm=llm,
            hardware=hardware,
            engine=EngineConfig(
                num_gpu_blocks=KV_TOKENS + 1,
                max_num_batched_tokens=BUDGET,
                max_num_seqs=BUDGET,
                overlap=overlap,
            ),
            cost_model=cost_model,
            output_lengths="oracle",
        )
        row["practical optimum"] = result.bounds.practical_optimum_s / exact
        row["tightest bound"] = result.bounds.tightest_s / exact
        row[scheduler] = exact / result.makespan_s
    return row


TINY = Tiny()
