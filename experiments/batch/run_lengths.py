"""What a run knows about output lengths: each request's cap and the lengths seen so far."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bssim.sim.lengths import (
    EDGES,
    MIN_SAMPLES,
    KnownEstimator,
    OutputEstimates,
    SurvivalCurves,
    SurvivalEstimator,
)
from bssim.sim.workload import Workload

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
SAMPLED_PART = 50
"""One request in this many is sampled, but at least `MIN_SAMPLES` or a tenth of a small pool."""
SHORT_CAP = 16
"""Requests with a cap up to this are not sampled, because the cap says enough."""


@dataclass(frozen=True, eq=False)
class Observed:
    """Requests that ran. One that stopped at its cap counts as censored."""

    rows: IntArray
    output_tokens: IntArray
    ended: npt.NDArray[np.bool_]
    """Whether the model ended the output, rather than the cap."""


class RunLengths:
    """Survival curves along the prefix tree, cut at each request's own cap (`pool.max_tokens`).

    A group is the smallest subtree with enough sampled requests, as in `SurvivalEstimator`.
    """

    def __init__(self, pool: Workload, rng: np.random.Generator) -> None:
        assert pool.max_tokens is not None
        self._caps = pool.max_tokens
        # Without caps, because this class applies them itself.
        self._estimator = SurvivalEstimator(replace(pool, max_tokens=None), rng)
        wanted = max(-(-len(pool) // SAMPLED_PART), min(MIN_SAMPLES, len(pool) // 10))
        open_ = self._estimator.sample[self._caps[self._estimator.sample] > SHORT_CAP]
        position = np.empty(len(pool), dtype=np.int64)
        position[pool.dfs_order] = np.arange(len(pool))
        some = open_[:wanted]
        self.sample: list[int] = some[np.argsort(position[some])].tolist()
        """Rows to run first, in DFS order."""

    def estimate(self, seen: Observed) -> tuple[OutputEstimates, SurvivalCurves | None]:
        """Return the estimates of all requests, and the curves before the caps are applied.

        Without any observation, every request is expected to reach its cap.
        """
        caps = self._caps.astype(np.float64)
        if not len(seen.rows):
            return OutputEstimates(caps, caps * caps), None
        found = self._estimator.estimate(seen.rows, seen.output_tokens, seen.ended)
        curves = found.survival
        assert curves is not None
        mean, second = curves.capped_moments(caps)
        return OutputEstimates(mean, second, curves), curves

    def draw(self, curves: SurvivalCurves | None, rng: np.random.Generator) -> IntArray:
        """Draw an output length for every request from its curve, limited to its cap."""
        if curves is None:
            return self._caps.astype(np.int64)
        lengths = np.empty(len(self._caps), dtype=np.float64)
        log_chance = np.log1p(-rng.random(len(self._caps)))
        log_edges = np.log(EDGES)
        for group in np.unique(curves.group):
            members = curves.group == group
            falling = -curves.log_survival[group]
            lengths[members] = np.interp(-log_chance[members], falling, log_edges)
        return np.clip(np.rint(np.exp(lengths)).astype(np.int64), 1, self._caps)


def learned(estimates: OutputEstimates, rows: IntArray) -> KnownEstimator:
    """Return an estimator for the pool's ``rows`` that needs no further sample."""
    survival = estimates.survival
    if survival is not None:
        survival = SurvivalCurves(survival.log_survival, survival.group[rows])
    return KnownEstimator(
        "learned",
        OutputEstimates(estimates.mean[rows], estimates.second_moment[rows], survival),
    )
