"""Calibration of estimators: known distributions are covered, wrong shapes are found out."""

import numpy as np
import pytest

from bssim.errors import InputError
from bssim.sim.lengths import QUANTILES, calibrate_estimator
from bssim.sim.workload import Workload, make_workload


def drawn(bimodal: bool) -> Workload:
    """6,000 requests of one source: lognormal, or two narrow peaks."""
    rng = np.random.default_rng(3)
    n = 6000
    output = rng.lognormal(7.0, 0.8, n)
    if bimodal:
        output = np.where(rng.random(n) < 0.5, 100.0, 8000.0) * rng.uniform(0.9, 1.1, n)
    return make_workload("drawn", np.full(n, 50), np.ceil(output).astype(np.int64))


def coverage(pool: Workload, name: str, generated: int = 0) -> np.ndarray:
    report = calibrate_estimator(pool, name, np.random.default_rng(0), generated=generated)
    (one,) = report.by_source.values()
    assert one.requests <= len(pool) - report.sampled_requests
    return one.coverage


def test_true_moments_of_a_lognormal_cover_it() -> None:
    assert coverage(drawn(False), "mean") == pytest.approx(QUANTILES, abs=0.02)
    assert coverage(drawn(False), "mean", 1000) == pytest.approx(QUANTILES, abs=0.03)


@pytest.mark.parametrize("name", ["sampled", "survival"])
def test_sixty_samples_come_close(name: str) -> None:
    assert coverage(drawn(False), name) == pytest.approx(QUANTILES, abs=0.12)


def test_survival_curves_follow_two_peaks_and_a_lognormal_does_not() -> None:
    def worst(name: str) -> float:
        return float(np.abs(coverage(drawn(True), name)[1:5] - QUANTILES[1:5]).max())

    assert worst("survival") < worst("mean")


def test_known_lengths_predict_their_tokens_and_cost_no_sample() -> None:
    report = calibrate_estimator(drawn(True), "oracle", np.random.default_rng(0))
    (one,) = report.by_source.values()
    assert (report.sampled_requests, report.sampled_tokens) == (0, 0)
    assert one.tokens_ratio == pytest.approx(1.0, abs=0.1)
    assert one.reads_ratio == pytest.approx(1.0, abs=0.1)


def test_unknown_estimators_are_refused() -> None:
    with pytest.raises(InputError, match="survival"):
        calibrate_estimator(drawn(False), "survivel", np.random.default_rng(0))
