"""How good estimates of output lengths are: the coverage of their quantiles, and their cost.

Estimates are calibrated if a share q of the requests is no longer than the predicted q-quantile.
The quantiles are those of running requests, given the tokens generated so far.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bssim.sim.lengths.estimators import make_estimator
from bssim.sim.lengths.survival import SurvivalCurves
from bssim.sim.workload import Workload

FloatArray = npt.NDArray[np.float64]

QUANTILES: FloatArray = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99])


@dataclass(frozen=True, eq=False)
class Calibration:
    """Predictions and true lengths of one group of requests."""

    requests: int
    """Number of requests in the group: those longer than the tokens given."""
    coverage: FloatArray
    """Shape of `QUANTILES`: share of the requests that did not exceed their predicted quantile."""
    tokens_ratio: float
    """Sum of the predicted remaining tokens, divided by the true sum."""
    reads_ratio: float
    """The same ratio for the KV tokens read in decode steps, on which packing depends."""


@dataclass(frozen=True, eq=False)
class EstimatorReport:
    """One estimator on one pool."""

    estimator: str
    generated: int
    """Tokens that requests had generated at the time of the prediction."""
    by_source: dict[str, Calibration]
    sampled_requests: int
    sampled_tokens: int
    """Prompt and output tokens of the sample. They are part of the pool's own work, so this is
    compute moved forward, not added."""


def calibrate_estimator(
    workload: Workload, name: str, rng: np.random.Generator, *, generated: int = 0
) -> EstimatorReport:
    """Return the coverage of an estimator's quantiles after its sample.

    With ``generated`` > 0, the sample has also run for only that many tokens: longer requests are
    censored, as in the middle of a run. An estimator with only two moments is represented by the
    lognormal distribution with these moments, as in `bssim.sim.schedulers.ratio.ratio`. Raises
    InputError for an unknown name.
    """
    estimator = make_estimator(name, workload, rng)
    output = workload.output_tokens
    sample = estimator.sample
    seen = np.minimum(output[sample], generated) if generated else output[sample]
    estimates = estimator.estimate(sample, seen, output[sample] <= seen)
    curves = estimates.survival
    if curves is None:
        curves = SurvivalCurves.lognormal(estimates.mean, estimates.second_moment)
    asked = output > generated
    asked[sample] = False
    by_source = {}
    for k, source in enumerate(workload.source_names):
        which = np.flatnonzero(asked & (workload.source == k))
        if len(which):
            by_source[source] = _calibration(workload, curves, which, generated)
    return EstimatorReport(
        estimator=name,
        generated=generated,
        by_source=by_source,
        sampled_requests=len(sample),
        sampled_tokens=int((workload.prompt_tokens + output)[sample].sum()),
    )


def _calibration(
    workload: Workload, curves: SurvivalCurves, which: npt.NDArray[np.int64], generated: int
) -> Calibration:
    """Compare the predictions for the requests ``which`` with their true lengths."""
    group = curves.group[which].astype(np.int64)
    start = np.full(len(which), float(generated))
    length = workload.output_tokens[which].astype(np.float64)
    # Lengths are whole numbers: the middle of P(d < length) and P(d <= length) is uniform.
    now = curves.at(group, start)
    below = -np.expm1(curves.at(group, length - 1) - now)
    through = -np.expm1(curves.at(group, length) - now)
    place = (below + through) / 2
    mean, square = curves.residual(group, start)
    left = length - generated
    held = workload.prompt_tokens[which] + start
    return Calibration(
        requests=len(which),
        coverage=np.array([np.mean(place <= q) for q in QUANTILES]),
        tokens_ratio=float(mean.sum() / left.sum()),
        reads_ratio=float((held * mean + square / 2).sum() / (held * left + left**2 / 2).sum()),
    )
