"""Time GEMMs and decode attention together, to see what a GPU gains by overlapping them.

The launches of a pair of operators are chosen so that attention alone takes a given multiple of the
seconds of the GEMMs alone. Both are timed alone and together, each on its own CUDA stream. All
repetitions of all pairs and ratios run in one random order. The GPU is behind a protocol, so that
everything except `CudaCoRunner` also works with a simulated machine whose frontier is known.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from bssim.backends.profiling.operators import (
    FLUSH_BYTES,
    Case,
    check_measured,
    half_range,
    import_torch,
    operator,
)
from bssim.cost_models.fitting import CoRun
from bssim.cost_models.llm import LLMSpec, Shard
from bssim.cost_models.operators import dense_gemms
from bssim.errors import InputError

LEAST_LAUNCHES = 4
"""Launches of each operator per run, so that the first and last one matter little."""
MOST_LAUNCHES = 512


@dataclass(frozen=True, slots=True)
class OverlapPlan:
    """The grid: every GEMM with every batch at every ratio of their seconds."""

    rows: tuple[int, ...] = (512, 2048)
    """Rows of the GEMM. It is compute-bound, because the frontier is for compute and memory."""
    batches: tuple[tuple[int, int], ...] = ((64, 1024), (256, 1024), (64, 4096))
    """(requests, context tokens) of decode attention."""
    held_out_batches: tuple[tuple[int, int], ...] = ((128, 2048),)
    """Used only to check the frontier, not to fit it."""
    ratios: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
    """Attention seconds over GEMM seconds, each measured alone."""
    max_bytes: float = 2**32
    """The most KV bytes of a batch; larger batches are left out."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A GEMM and a decode attention that run together."""

    rows: int
    n: int
    k: int
    requests: int
    context: int
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class OverlapMeasurement:
    """One pair at one ratio, with the seconds of each repetition in execution order."""

    pair: Pair
    ratio: float
    gemms: int
    """GEMM launches per run; ``attentions`` counts those of attention."""
    attentions: int
    gemm_s: tuple[float, ...]
    attention_s: tuple[float, ...]
    together_s: tuple[float, ...]

    def corun(self) -> CoRun:
        """Return the medians."""
        return CoRun(
            ratio=self.ratio,
            gemm_s=float(np.median(self.gemm_s)),
            attention_s=float(np.median(self.attention_s)),
            together_s=float(np.median(self.together_s)),
            spread=half_range(self.together_s),
            held_out=self.pair.held_out,
        )


class CoRunner(Protocol):
    """A machine that can run two operators at the same time."""

    def seconds(self, pair: Pair, gemms: int, attentions: int) -> float:
        """Return the seconds until all launches are done; 0 launches run the other one alone."""


def pairs(llm: LLMSpec, plan: OverlapPlan) -> list[Pair]:
    """Return the pairs of ``llm``: its largest dense GEMM with each batch that fits in memory."""
    gemm = max(dense_gemms(Shard(llm)), key=lambda gemm: gemm.weights)
    return [
        Pair(rows, gemm.n, gemm.k, requests, context, (requests, context) in plan.held_out_batches)
        for rows in plan.rows
        for requests, context in (*plan.batches, *plan.held_out_batches)
        if requests * context * llm.kv_bytes_per_token_layer <= plan.max_bytes
    ]


def launch_counts(gemm_s: float, attention_s: float, ratio: float) -> tuple[int, int]:
    """Return the launches of GEMM and attention whose seconds alone are closest to ``ratio``.

    ``gemm_s`` and ``attention_s`` are seconds per launch. The operator with fewer launches has
    `LEAST_LAUNCHES`, and neither has more than `MOST_LAUNCHES`.
    """
    attentions_per_gemm = ratio * gemm_s / attention_s
    least = LEAST_LAUNCHES
    if attentions_per_gemm >= 1:
        return least, min(round(least * attentions_per_gemm), MOST_LAUNCHES)
    return min(round(least / attentions_per_gemm), MOST_LAUNCHES), least


def measure_overlap(
    work: Sequence[Pair],
    runner: CoRunner,
    *,
    ratios: Sequence[float],
    repeats: int = 7,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> list[OverlapMeasurement]:
    """Return the times of every pair at every ratio, alone and together.

    The three times of a repetition are measured one after another, in random order. A first run of
    each pair warms up and determines the number of launches per ratio.
    """
    grid: list[tuple[Pair, float, tuple[int, int]]] = []
    for pair in work:
        runner.seconds(pair, LEAST_LAUNCHES, LEAST_LAUNCHES)
        gemm = runner.seconds(pair, LEAST_LAUNCHES, 0) / LEAST_LAUNCHES
        attention = runner.seconds(pair, 0, LEAST_LAUNCHES) / LEAST_LAUNCHES
        grid += [(pair, ratio, launch_counts(gemm, attention, ratio)) for ratio in ratios]
    times: list[list[list[float]]] = [[[], [], []] for _ in grid]
    order = list(rng.permutation(np.repeat(np.arange(len(grid)), repeats)))
    for done, index in enumerate(order):
        pair, _, (gemms, attentions) = grid[int(index)]
        runs = ((gemms, 0), (0, attentions), (gemms, attentions))
        for which in rng.permutation(len(runs)):
            times[int(index)][int(which)].append(runner.seconds(pair, *runs[int(which)]))
        if progress is not None:
            progress(done + 1, len(order))
    return [
        OverlapMeasurement(pair, ratio, gemms, attentions, *map(tuple, found))
        for (pair, ratio, (gemms, attentions)), found in zip(grid, times, strict=True)
    ]


class CudaCoRunner:
    """Two CUDA streams, timed by events; attention has the higher priority.

    With equal priorities, a GEMM that fills the GPU would delay attention until its last wave.
    Raises InputError without torch or a GPU, and for models with MLA or MoE layers.
    """

    def __init__(self, llm: LLMSpec, device: str = "cuda") -> None:
        if device == "cpu":
            raise InputError(
                "calibrate: --overlap",
                "--device cpu",
                "cuda: on a CPU operators run one after another",
            )
        self._torch = import_torch(device)
        check_measured(llm)
        self._streams = [self._torch.cuda.Stream(priority=priority) for priority in (0, -1)]
        self._flush = self._torch.empty(FLUSH_BYTES, dtype=self._torch.uint8, device=device)
        torch = self._torch

        @lru_cache(maxsize=32)  # creating the data again would take longer than a run
        def data(kind: str, sizes: tuple[int, ...]) -> Callable[[], object]:
            return operator(torch, Case(kind, sizes), llm, device)

        self._operator = data

    def seconds(self, pair: Pair, gemms: int, attentions: int) -> float:
        """Return the seconds of one run that starts with an overwritten cache."""
        cuda = self._torch.cuda
        gemm = self._operator("gemm", (pair.rows, pair.n, pair.k))
        attention = self._operator("decode_attention", (pair.requests, pair.context))
        begin, end = (cuda.Event(enable_timing=True) for _ in range(2))
        with self._torch.inference_mode():
            self._flush.zero_()
            begin.record()
            for stream in self._streams:
                stream.wait_event(begin)
            for is_attention in interleaved(gemms, attentions):
                with cuda.stream(self._streams[is_attention]):
                    (attention if is_attention else gemm)()
            for stream in self._streams:
                cuda.current_stream().wait_stream(stream)
            end.record()
        cuda.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


def interleaved(gemms: int, attentions: int) -> list[bool]:
    """Return the order of launches, True for attention, with each operator spread evenly.

    If one stream were filled first, it would run alone while the other is filled.
    """
    at: list[tuple[float, bool]] = [((i + 0.5) / gemms, False) for i in range(gemms)]
    at += [((i + 0.5) / attentions, True) for i in range(attentions)]
    return [is_attention for _, is_attention in sorted(at)]


def overlap_rows(measured: Sequence[OverlapMeasurement]) -> list[dict[str, Any]]:
    """Return one CSV row per repetition."""
    return [
        {
            "rows": m.pair.rows,
            "n": m.pair.n,
            "k": m.pair.k,
            "requests": m.pair.requests,
            "context": m.pair.context,
            "held_out": m.pair.held_out,
            "ratio": m.ratio,
            "gemms": m.gemms,
            "attentions": m.attentions,
            "repetition": i,
            "gemm_s": m.gemm_s[i],
            "attention_s": m.attention_s[i],
            "together_s": m.together_s[i],
        }
        for m in measured
        for i in range(len(m.together_s))
    ]
