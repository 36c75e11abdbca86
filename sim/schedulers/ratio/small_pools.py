"""Small pools: `ratio` simulates itself and simple orders, and serves the best one.

A pool of a few thousand requests ends before lengths are learned, and its last requests run almost
alone. Pacing can cost more there than it gains. The candidates are therefore simulated with a few
*worlds*: output lengths for all requests that agree with what is known before the run. Depth-first
order is replaced only by a candidate that is faster on average and nowhere much slower. If nothing
is known, the worlds are guesses, from very short to very long.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from bssim.sim.engine import EngineCore, RequestColumns, cache_maker
from bssim.sim.lengths import OutputEstimates, OutputEstimator
from bssim.sim.schedulers.interface import Plan, PlanContext, Scheduler
from bssim.sim.schedulers.partition import round_robin
from bssim.sim.schedulers.static_order import Dfs, Fcfs, FixedOrder

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Worlds = tuple[tuple[IntArray, ...], ...]

MOST_REQUESTS = 5_000
"""The largest pool that is small."""
MOST_TOKENS = 5_000_000
"""Most output tokens that such a pool is expected to have, because simulations take time too."""
MARGIN = 0.01
"""How much faster than depth-first, on average over the worlds, another order must be."""
REGRET = 0.01
"""How much slower than depth-first it may be in any world."""
CAP_SHARE, CAP_SPREAD = 0.3, 0.6
"""Median of lognormal lengths as a share of the cap, and their standard deviation in logarithms."""
SHORT_SHARES = (0.1, 0.02)
"""The same for lengths of which caps say nothing, as shares of the median cap."""
GUESSED_MEANS = (16.0, 64.0, 256.0, 1024.0, 4096.0)
"""Mean output lengths that are assumed in turn if nothing is known, tokens."""
GUESSED_SPREAD = 1.2
"""Standard deviation in logarithms of the lognormal lengths among the guesses."""
GUESSED_TOKENS = 2_000_000
"""Most output tokens of such a guess, because simulations take time."""
GUESSED_MARGIN, GUESSED_REGRET = 0.005, 0.02
"""The same margin for guesses, and the regret in those with equal lengths. With unequal lengths,
seconds also depend on which long output starts last, so only the average over guesses counts."""
DRAWS = 2
"""How often random lengths are drawn."""
STEPS = 4096
"""Steps that the cost model prices at once."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What may be assumed about output lengths before the run."""

    estimator: OutputEstimator
    """The scheduler's own estimator, which knows nothing before its sample has run."""
    worlds: Worlds
    """Possible output lengths of all requests, shape (n,) each: the draws of each assumption."""
    regrets: tuple[float, ...]
    """How much slower than depth-first an order may be in each world."""
    margin: float
    """How much faster it must be on average."""
    guessed: bool = False
    """Whether nothing is known."""


@dataclass(frozen=True, eq=False)
class _BeforeSample:
    """An estimator of which only prior estimates are known before the run."""

    estimator: OutputEstimator
    prior: OutputEstimates

    @property
    def name(self) -> str:
        return self.estimator.name

    @property
    def sample(self) -> IntArray:
        return self.estimator.sample

    @property
    def uses_all(self) -> bool:
        return self.estimator.uses_all

    def estimate(
        self, requests: IntArray, generated: IntArray, done: npt.NDArray[np.bool_]
    ) -> OutputEstimates:
        return self.estimator.estimate(requests, generated, done)

    def final(self) -> OutputEstimates:
        return self.prior


@dataclass(frozen=True)
class LongestFirst(FixedOrder):
    """Longest expected output first, dealt to replicas in turn."""

    name: str = "longest_first"

    def parts(self, context: PlanContext) -> list[IntArray]:
        """See `FixedOrder.parts`."""
        expected = context.estimator.final().mean
        return round_robin(np.argsort(-expected, kind="stable"), context.replicas)


def knowledge(context: PlanContext, rng: np.random.Generator) -> Knowledge | None:
    """Return what is known before the run, or None if that is too long to simulate.

    Estimators without a sample give their estimates. Before a sample has run, only caps are known.
    Caps of more than `MOST_TOKENS` say too little about lengths, and then nothing is known.
    """
    workload, estimator = context.workload, context.estimator
    caps = None if workload.max_tokens is None else workload.max_tokens.astype(np.float64)
    most = _most_output(context) if caps is None else np.minimum(caps, _most_output(context))
    if not len(estimator.sample):
        now = estimator.final()
        worlds = _whole(_from_estimates(now, caps, rng), most)
        if _short(worlds):
            return Knowledge(
                estimator, worlds, (REGRET,) * len(worlds), 0.0 if now.known else MARGIN
            )
        if caps is None or not np.array_equal(now.mean, caps):
            return None
    elif caps is not None:
        worlds = _whole(_below_caps(caps, rng), most)
        if _short(worlds):
            before = _BeforeSample(estimator, OutputEstimates(caps / 2, caps**2 / 3))
            return Knowledge(before, worlds, (REGRET,) * len(worlds), MARGIN)
    if len(estimator.sample):
        typical = np.full(len(workload), math.exp(float(np.mean(np.log(GUESSED_MEANS)))))
        estimator = _BeforeSample(estimator, OutputEstimates(typical, 2 * typical**2))
    equal, unequal = _guesses(len(workload), rng)
    regrets = (GUESSED_REGRET,) * len(equal) + (math.inf,) * len(unequal)
    return Knowledge(estimator, _whole(equal + unequal, most), regrets, GUESSED_MARGIN, True)


def _short(worlds: Worlds) -> bool:
    """Return whether the first world is short enough to simulate."""
    return int(worlds[0][0].sum()) <= MOST_TOKENS


def _whole(worlds: Sequence[Sequence[FloatArray]], most: FloatArray) -> Worlds:
    """Return lengths in whole tokens, between 1 and ``most``."""
    return tuple(
        tuple(np.clip(np.rint(draw), 1, most).astype(np.int64) for draw in draws)
        for draws in worlds
    )


def _from_estimates(
    now: OutputEstimates, caps: FloatArray | None, rng: np.random.Generator
) -> list[list[FloatArray]]:
    """Return the estimates themselves, and unless they are known, other lengths near them."""
    worlds = [[now.mean]]
    spread = np.sqrt(np.log(np.maximum(now.second_moment / now.mean**2, 1.0)))
    if not now.known and not spread.any():  # caps or means alone, which outputs do not keep to
        worlds += _below_caps(now.mean if caps is None else caps, rng)
    elif not now.known:
        median = now.mean * np.exp(-(spread**2) / 2)
        noise = (rng.standard_normal(len(median)) for _ in range(DRAWS))
        worlds.append([median * np.exp(spread * z) for z in noise])
    return worlds


def _guesses(
    n: int, rng: np.random.Generator
) -> tuple[list[list[FloatArray]], list[list[FloatArray]]]:
    """Return equal lengths of several means, and exponential and lognormal ones.

    Guesses with too many tokens are left out, but never the shortest.
    """
    means = [mean for mean in GUESSED_MEANS if n * mean <= GUESSED_TOKENS]
    exponential = rng.standard_exponential(n)
    lognormal = np.exp(GUESSED_SPREAD * rng.standard_normal(n) - GUESSED_SPREAD**2 / 2)
    unequal = [[mean * shape] for mean in means for shape in (exponential, lognormal)]
    return [[np.full(n, mean)] for mean in means], unequal


def _below_caps(caps: FloatArray, rng: np.random.Generator) -> list[list[FloatArray]]:
    """Return lengths below each request's cap, for several assumptions.

    Half of the cap, a uniform share, a lognormal share, and short lengths (equal, then lognormal)
    for all requests alike, because a cap may say nothing about the length.
    """
    n = len(caps)
    spread = CAP_SPREAD * rng.standard_normal((DRAWS, n))
    half = np.full((1, n), 0.5)
    shares = (half, rng.random((DRAWS, n)), CAP_SHARE * np.exp(spread))
    factors = np.concatenate([np.ones((1, n)), np.exp(spread)])
    typical = np.array(SHORT_SHARES) * float(np.median(caps))
    short = [list(np.minimum(tokens * factors, caps)) for tokens in typical]
    return [*(list(share * caps) for share in shares), *short]


def _most_output(context: PlanContext) -> FloatArray:
    """Return the longest output of each request that can run; shape (n,)."""
    engine, prompt = context.engine, context.workload.prompt_tokens
    computed = context.kv_capacity_tokens
    if not engine.enable_chunked_prefill:
        computed = min(computed, engine.max_num_batched_tokens)
    most = computed + 1 - prompt
    if engine.max_model_len is not None:
        most = np.minimum(most, engine.max_model_len - prompt)
    return np.maximum(most, 1).astype(np.float64)


def is_small(context: PlanContext) -> bool:
    """Return whether `best_plan` decides. With reserve admission it never does."""
    return len(context.workload) <= MOST_REQUESTS and context.engine.admission == "optimistic"


def best_plan(context: PlanContext, ratio: Scheduler) -> Plan:
    """Return the plan of ``ratio`` or of a simple order, whichever is the fastest in simulation."""
    known = knowledge(context, copy.deepcopy(context.rng))
    if known is None:
        return ratio.plan(context)
    final = context.estimator.final() if known.guessed else known.estimator.final()
    context = replace(context, estimator=known.estimator)
    # Short worlds first: most orders that are refused are refused there, and they cost least.
    worlds = sorted(
        zip(known.worlds, known.regrets, strict=True),
        key=lambda world: (world[1], int(world[0][0].sum())),
    )

    @cache
    def own(world: int) -> FloatArray:
        return _seconds(context, Dfs(), worlds[world][0])

    simple: list[Scheduler] = []
    if not known.guessed:
        simple += [Fcfs(), Dfs("dfs_memory_first", "memory_first")]
        if np.ptp(final.mean) > 0.0:
            simple.append(LongestFirst())
    best: Scheduler = Dfs()
    best_score = -known.margin
    for other in (*simple, ratio):
        score = _score(context, other, worlds, own, holds_back=other is ratio)
        if score < best_score:
            best, best_score = other, score
    plan = _planned(context, best)
    note = f"ratio: small pool, {best.name} is the best of {len(simple) + 2} orders in simulation"
    return replace(plan, estimated_output_tokens=final.mean, notes=(*plan.notes, note))


def _score(
    context: PlanContext,
    scheduler: Scheduler,
    worlds: Sequence[tuple[Sequence[IntArray], float]],
    own: Callable[[int], FloatArray],
    *,
    holds_back: bool,
) -> float:
    """Return the mean of log(seconds / seconds depth-first), infinite above a world's regret.

    An order that admits what fits is slower only by chance, so the mean over the draws counts. A
    scheduler that ``holds_back`` requests that fit is slower where outputs are shorter than it
    believes, so the worst draw counts.
    """
    logs = []
    for world, (draws, regret) in enumerate(worlds):
        each = np.log(_seconds(context, scheduler, draws) / own(world))
        logs.append(float(each.mean()))
        if (each.max() if holds_back else logs[-1]) > regret:
            return math.inf
    return sum(logs) / len(logs)


def _planned(context: PlanContext, scheduler: Scheduler) -> Plan:
    """Return the scheduler's plan, the same one each time."""
    return scheduler.plan(replace(context, rng=copy.deepcopy(context.rng)))


def _seconds(context: PlanContext, scheduler: Scheduler, draws: Sequence[IntArray]) -> FloatArray:
    """Return the makespan with each draw of output lengths."""
    return np.array([_makespan(context, scheduler, draw) for draw in draws])


def _makespan(context: PlanContext, scheduler: Scheduler, output_tokens: IntArray) -> float:
    """Simulate the pool with these output lengths and return the makespan."""
    workload = replace(context.workload, output_tokens=output_tokens)
    plan = _planned(replace(context, workload=workload), scheduler)
    columns = RequestColumns(workload)
    blocks = context.kv_capacity_tokens // context.engine.block_size
    cache = cache_maker(workload, context.engine, blocks)
    longest = 0.0
    for policy in plan.policies:
        core = EngineCore(columns, policy, context.engine, cache(), windowed=context.windowed)
        seconds = 0.0
        while core.unfinished:
            work = core.advance(STEPS).work(context.engine.batch_multiple)
            seconds += float(
                np.sum(context.overlap.step_seconds(context.cost_model.step_cost(work)))
            )
        longest = max(longest, seconds)
    return longest
