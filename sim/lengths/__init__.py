"""What a scheduler knows about output lengths.

To add an estimator, write a class with the methods of `OutputEstimator` and a line in
`_ESTIMATORS`, both in `estimators.py`. `calibrate_estimator` reports how often its quantiles hold.
"""

from bssim.sim.lengths.coverage import QUANTILES, EstimatorReport, calibrate_estimator
from bssim.sim.lengths.estimators import (
    MIN_SAMPLES,
    SAMPLED_SHARE,
    SECOND_MOMENT_PRIOR,
    KnownEstimator,
    OutputEstimates,
    OutputEstimator,
    SampledEstimator,
    SurvivalEstimator,
    estimator_names,
    make_estimator,
)
from bssim.sim.lengths.survival import (
    BIN_WIDTH,
    EDGES,
    NUM_BINS,
    SurvivalCurves,
    kaplan_meier,
    length_bin,
)

__all__ = [
    "BIN_WIDTH",
    "EDGES",
    "MIN_SAMPLES",
    "NUM_BINS",
    "QUANTILES",
    "SAMPLED_SHARE",
    "SECOND_MOMENT_PRIOR",
    "EstimatorReport",
    "KnownEstimator",
    "OutputEstimates",
    "OutputEstimator",
    "SampledEstimator",
    "SurvivalCurves",
    "SurvivalEstimator",
    "calibrate_estimator",
    "estimator_names",
    "kaplan_meier",
    "length_bin",
    "make_estimator",
]
