"""Survival curves of output lengths: the probability of more than x output tokens.

Lengths span five orders of magnitude, so curves use bins of equal width in log length. A curve is
either a Kaplan-Meier estimate from finished and running requests (`kaplan_meier`) or a lognormal
with given moments (`lognormal`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_ndtr

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BIN_WIDTH = 0.15
"""Width of a bin in log length: 15 bins per factor of ten."""
NUM_BINS = 96
"""Number of bins, up to 1.7 million tokens."""
EDGES: FloatArray = np.exp(BIN_WIDTH * (np.arange(NUM_BINS + 1) - 0.5))
"""Shape (NUM_BINS + 1,): bin k is from EDGES[k] to EDGES[k + 1]; one token is inside bin 0."""
LOG_SURVIVAL_FLOOR = -60.0
"""Replaces the logarithm of 0. From here on, curves fall by 1 per bin, so that a request that
outlives its curve is expected to end soon."""
PRIOR_WEIGHT = 1.0
"""Weight of the lognormal prior in every bin, in requests."""
PRIOR_VARIANCE = 1.0
"""Variance of log length before anything is observed; real sources have 0.4 to 2."""
EM_ROUNDS = 25
"""Rounds of the censored lognormal fit, which starts near the solution."""


def length_bin(tokens: npt.ArrayLike) -> IntArray:
    """Return the bin of each length (at least one token)."""
    at = np.floor(np.log(np.maximum(np.asarray(tokens, np.float64), 1.0)) / BIN_WIDTH + 0.5)
    return np.minimum(at, NUM_BINS - 1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class SurvivalCurves:
    """One curve per group of requests, log-linear between the edges of the bins."""

    log_survival: FloatArray
    """Shape (groups, NUM_BINS + 1): log P(d > EDGES[k]); 0 in the first column, never rising."""
    group: npt.NDArray[np.int32]
    """Shape (n,): the curve of each request."""

    def at(self, group: IntArray, tokens: FloatArray) -> FloatArray:
        """Return log P(d > tokens); ``group`` and ``tokens`` broadcast."""
        place = np.log(np.maximum(tokens, 1.0)) / BIN_WIDTH + 0.5
        place = np.minimum(place, NUM_BINS - 1e-6)
        k = place.astype(np.int64)
        flat = self.log_survival.ravel()
        at = np.asarray(group) * (NUM_BINS + 1) + k
        low = flat[at]
        return np.asarray(low + (flat[at + 1] - low) * (place - k))

    def still_running(
        self, group: IntArray, generated: FloatArray, horizons: FloatArray
    ) -> FloatArray:
        """Return P(d > generated + h | d > generated), shape (requests, horizons).

        ``group`` and ``generated``: shape (requests,), for running requests.
        """
        now = self.at(group, generated)
        then = self.at(group[:, None], generated[:, None] + horizons)
        return np.exp(then - now[:, None])

    @cached_property
    def _integrals(self) -> tuple[FloatArray, FloatArray]:
        """Shapes (groups, NUM_BINS + 1): integrals of S and of (x - edge) S from each edge on."""
        survival = np.exp(self.log_survival)
        width = np.diff(EDGES)
        area = (survival[:, 1:] + survival[:, :-1]) / 2 * width
        # About the left edge, S linear in the bin.
        lever = width**2 * (survival[:, :-1] / 6 + survival[:, 1:] / 3)
        first = np.zeros_like(survival)
        second = np.zeros_like(survival)
        for k in range(NUM_BINS - 1, -1, -1):
            first[:, k] = area[:, k] + first[:, k + 1]
            second[:, k] = lever[:, k] + second[:, k + 1] + width[k] * first[:, k + 1]
        return first, second

    def residual(self, group: IntArray, generated: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return E[R] and E[R^2] of the remaining tokens R, given the tokens generated."""
        first, second = self._integrals
        place = np.log(np.maximum(generated, 1.0)) / BIN_WIDTH + 0.5
        k = np.clip(np.rint(place), 0, NUM_BINS - 1).astype(np.int64)
        survival = np.exp(self.log_survival[group, k])
        return first[group, k] / survival, 2 * second[group, k] / survival

    @cached_property
    def moments(self) -> tuple[FloatArray, FloatArray]:
        """Shapes (groups,): E[d] and E[d^2]."""
        first, second = self._integrals
        start = EDGES[0]
        mean = start + first[:, 0]
        return mean, start * start + 2 * (second[:, 0] + start * first[:, 0])

    def capped_moments(self, caps: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return E[min(d, cap)] and E[min(d, cap)^2] of each request, shapes of ``caps``, (n,)."""
        survival = np.exp(self.log_survival)
        width = np.diff(EDGES)
        area = (survival[:, 1:] + survival[:, :-1]) / 2 * width
        middle = (EDGES[1:] + EDGES[:-1]) / 2
        start = EDGES[0]
        first = start + np.cumsum(np.pad(area, ((0, 0), (1, 0))), axis=1)
        second = start**2 + np.cumsum(np.pad(2 * middle * area, ((0, 0), (1, 0))), axis=1)
        k = length_bin(caps)
        share = np.clip((caps - EDGES[k]) / width[k], 0.0, 1.0)
        group = self.group

        def upto(table: FloatArray) -> FloatArray:
            low = table[group, k]
            return np.asarray(low + share * (table[group, k + 1] - low))

        mean = np.clip(upto(first), 1.0, caps)
        return mean, np.clip(upto(second), mean**2, caps**2)

    def capped(self, caps: FloatArray) -> "SurvivalCurves":
        """Return curves that end at each request's cap; ``caps``: shape (n,), tokens.

        A curve ends in the bin of the cap. Requests with the same group and bin share a curve.
        """
        code = self.group.astype(np.int64) * NUM_BINS + length_bin(caps)
        # np.unique would sort all requests at every look at the lengths
        there = np.zeros(len(self.log_survival) * NUM_BINS, np.bool_)
        there[code] = True
        pairs, group = np.flatnonzero(there), (np.cumsum(there) - 1)[code]
        of, last = np.divmod(pairs, NUM_BINS)
        table = self.log_survival[of]
        gone = np.arange(NUM_BINS + 1) > last[:, None]
        table = _above_floor(np.where(gone, LOG_SURVIVAL_FLOOR, table))
        return SurvivalCurves(table, group.astype(np.int32))

    def quantile(self, group: int, q: float) -> float:
        """Return the length that a share ``q`` of the group's requests does not exceed."""
        falling = -self.log_survival[group]
        place = np.interp(-np.log1p(-q), falling, np.arange(NUM_BINS + 1))
        return float(np.exp(BIN_WIDTH * (place - 0.5)))

    @classmethod
    def lognormal(
        cls,
        mean: FloatArray,
        second_moment: FloatArray,
        group: npt.NDArray[np.int32] | None = None,
    ) -> Self:
        """Return lognormal curves with the moments of each request.

        ``group``, shape (n,): requests with the same number have the same moments and share a
        curve. By default, these are the requests with equal moments.
        """
        if group is None:
            # as complex numbers, because np.unique sorts the pairs of all requests, which is slow
            numbers, pairs = pd.factorize(mean + 1j * second_moment, sort=True)
            group, mean, second_moment = numbers.astype(np.int32), pairs.real, pairs.imag
        else:
            of_group = np.ones((2, int(group.max(initial=0)) + 1))
            of_group[:, group] = mean, second_moment
            mean, second_moment = of_group
        variance = np.log(np.maximum(second_moment / mean**2, 1.0 + 1e-4))
        log_survival = _lognormal_table(np.log(mean) - variance / 2, variance)
        return cls(log_survival, group)


def _lognormal_table(mu: FloatArray, variance: FloatArray) -> FloatArray:
    """Return log P(d > EDGES) of lognormal lengths, shape (groups, NUM_BINS + 1)."""
    z = (np.log(EDGES) - mu[:, None]) / np.sqrt(variance)[:, None]
    table = log_ndtr(-z)
    return _above_floor(table - table[:, :1])


def _above_floor(log_survival: FloatArray) -> FloatArray:
    """Return curves that fall by 1 per bin below `LOG_SURVIVAL_FLOOR`."""
    gone = log_survival <= LOG_SURVIVAL_FLOOR
    return np.where(gone, LOG_SURVIVAL_FLOOR + 1.0 - np.cumsum(gone, axis=1), log_survival)


def kaplan_meier(
    group: npt.NDArray[np.int32],
    num_groups: int,
    observed: IntArray,
    generated: IntArray,
    done: npt.NDArray[np.bool_],
) -> SurvivalCurves:
    """Return one curve per group from finished and still running (censored) requests.

    ``group``: shape (n,), the group of every request in the pool. ``observed``: requests;
    ``generated``: their tokens so far; ``done``: whether they have finished. The share of requests
    at risk that end in a bin (Kaplan and Meier 1958; requests censored in the bin count half, as in
    a life table) is shrunk toward a lognormal fitted to the same observations, which also covers
    bins that no observation reaches. Finished requests alone would bias the curve to short lengths.
    """
    cells = group[observed].astype(np.int64) * NUM_BINS + length_bin(generated)
    shape = (num_groups, NUM_BINS)
    ends = np.bincount(cells[done], minlength=num_groups * NUM_BINS).reshape(shape)
    open_ = np.bincount(cells[~done], minlength=num_groups * NUM_BINS).reshape(shape)
    tokens = generated.astype(np.float64)
    exposure = np.bincount(group[observed], tokens, num_groups).astype(np.float64)
    fitted = _lognormal_table(*_censored_lognormal(ends, open_, exposure))
    with np.errstate(under="ignore"):
        prior = -np.expm1(np.diff(fitted, axis=1))
    prior[fitted[:, 1:] <= LOG_SURVIVAL_FLOOR] = 1.0
    arrivals = ends + open_
    at_risk = np.cumsum(arrivals[:, ::-1], axis=1)[:, ::-1] - open_ / 2
    hazard = (ends + PRIOR_WEIGHT * prior) / (at_risk + PRIOR_WEIGHT)
    falls = np.log(np.maximum(1.0 - hazard, 1e-12))
    table = np.concatenate([np.zeros((num_groups, 1)), np.cumsum(falls, axis=1)], axis=1)
    return SurvivalCurves(_above_floor(table), group)


def _censored_lognormal(
    ends: IntArray, open_: IntArray, exposure: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Fit mean and variance of the log length per group by expectation maximisation.

    One prior request counts as finished at the exponential's maximum-likelihood mean, exposure
    divided by finishes, so a group without a finished request also has a result.
    """
    centre = BIN_WIDTH * np.arange(NUM_BINS)
    finished, running = ends.sum(axis=1), open_.sum(axis=1)
    prior = np.log(np.maximum(exposure, 1.0) / np.maximum(finished, 1.0) + 1.0)
    total = finished + running + 1.0
    sum_1 = ends @ centre + prior
    mu = prior.copy()
    variance = np.full(len(mu), PRIOR_VARIANCE)
    for _ in range(EM_ROUNDS):
        # Mean and mean square of log length beyond each censoring point.
        sigma = np.sqrt(variance)[:, None]
        z = (centre - mu[:, None]) / sigma
        tail = np.exp(-z * z / 2 - log_ndtr(-z)) / np.sqrt(2 * np.pi)
        beyond = mu[:, None] + sigma * tail
        spread = variance[:, None] * (1 + z * tail - tail * tail)
        mu = (sum_1 + (open_ * beyond).sum(axis=1)) / total
        off = (ends * (centre - mu[:, None]) ** 2).sum(axis=1) + (prior - mu) ** 2
        off += (open_ * (spread + (beyond - mu[:, None]) ** 2)).sum(axis=1)
        variance = (off + PRIOR_VARIANCE) / (total + 1.0)
    return mu, np.maximum(variance, BIN_WIDTH**2 / 12)
