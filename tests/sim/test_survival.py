"""Survival curves: closed forms, known shapes, censoring, and the estimator's groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bssim.sim.lengths import (
    BIN_WIDTH,
    EDGES,
    SurvivalCurves,
    SurvivalEstimator,
    kaplan_meier,
    length_bin,
    make_estimator,
)
from bssim.sim.workload import PrefixTree, Workload, make_workload


def one_group(n: int) -> np.ndarray:
    return np.zeros(n, np.int32)


def fit(lengths: np.ndarray, cut: np.ndarray | None = None) -> SurvivalCurves:
    """The curve of one group of which each request ran for at most `cut` tokens."""
    seen = lengths if cut is None else np.minimum(lengths, cut)
    done = np.ones(len(lengths), np.bool_) if cut is None else lengths <= cut
    return kaplan_meier(one_group(len(lengths)), 1, np.arange(len(lengths)), seen, done)


def test_a_length_lies_inside_its_bin() -> None:
    lengths = np.array([1, 2, 3, 10, 999, 100_000])
    k = length_bin(lengths)
    assert np.all(EDGES[k] <= lengths)
    assert np.all(lengths < EDGES[k + 1])


def test_lognormal_curves_have_their_moments() -> None:
    mean, second = np.array([100.0, 5000.0, 100.0]), np.array([3e4, 1e8, 3e4])
    curves = SurvivalCurves.lognormal(mean, second)
    assert curves.group[0] == curves.group[2]
    got_mean, got_second = curves.moments
    assert got_mean[curves.group] == pytest.approx(mean, rel=0.02)
    assert got_second[curves.group] == pytest.approx(second, rel=0.04)


def test_lognormal_curves_of_given_groups_are_those_of_equal_moments() -> None:
    group = np.array([3, 1, 3, 0, 1], np.int32)  # no request is in group 2
    mean = np.array([200.0, 100.0, 5000.0, 7000.0])[group]
    found = SurvivalCurves.lognormal(mean, 3 * mean**2)
    given = SurvivalCurves.lognormal(mean, 3 * mean**2, group)
    tables = [curves.log_survival[curves.group] for curves in (found, given)]
    assert np.array_equal(*tables)


def test_residual_of_an_exponential_does_not_age() -> None:
    rng = np.random.default_rng(0)
    curves = fit(np.ceil(rng.exponential(1000.0, 20_000)).astype(np.int64))
    group = np.zeros(3, np.int64)
    left, square = curves.residual(group, np.array([30.0, 300.0, 1500.0]))
    assert left == pytest.approx(np.full(3, 1000.0), rel=0.12)
    assert square == pytest.approx(np.full(3, 2e6), rel=0.25)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.lognormal(7, 1, n),
        lambda rng, n: rng.gamma(2.0, 800.0, n),
        lambda rng, n: np.where(rng.random(n) < 0.35, 300.0, 8000.0) * rng.uniform(0.5, 1.5, n),
        lambda rng, n: 200 * (1 + rng.pareto(2.5, n)),
    ],
    ids=["lognormal", "gamma", "bimodal", "pareto"],
)
def test_censored_observations_give_the_distribution_back(draw) -> None:
    """Requests that started one after another, stopped while many still run."""
    rng = np.random.default_rng(1)
    lengths = np.ceil(draw(rng, 4000)).astype(np.int64)
    cut = rng.integers(1, int(np.quantile(lengths, 0.99)) + 1, len(lengths))
    curves = fit(lengths, cut)
    finished = lengths[lengths <= cut]
    for q in (0.2, 0.5, 0.8):
        true = np.quantile(lengths, q)
        share_true = 1 - float(np.exp(curves.at(np.zeros(1, np.int64), np.array([true])))[0])
        assert share_true == pytest.approx(q, abs=0.06)
        # What finished is biased to short requests, the curve is not.
        assert abs(share_true - q) < np.mean(finished <= true) - q


def test_with_nothing_finished_the_rest_is_longer_than_what_was_seen() -> None:
    curves = fit(np.full(30, 10_000), np.full(30, 1000))
    assert curves.moments[0][0] > 1000
    alive = curves.still_running(np.zeros(1, np.int64), np.array([1000.0]), np.array([0.0, 500.0]))
    assert alive[0, 0] == pytest.approx(1.0)
    assert 0.5 < alive[0, 1] < 1.0


def test_quantiles_invert_the_curve() -> None:
    curves = fit(np.arange(1, 2001))
    for q in (0.1, 0.5, 0.9):
        assert curves.quantile(0, q) == pytest.approx(2000 * q, rel=BIN_WIDTH)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 200_000), min_size=1, max_size=60),
    st.integers(0, 2**32 - 1),
)
def test_curves_are_survival_functions(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = len(lengths)
    done = rng.random(n) < 0.5
    curves = kaplan_meier(one_group(n), 1, np.arange(n), np.array(lengths), done)
    log_survival = curves.log_survival[0]
    assert log_survival[0] == 0.0
    assert np.all(np.isfinite(log_survival))
    assert np.all(np.diff(log_survival) <= 1e-12)
    mean, second = curves.moments
    assert second[0] >= mean[0] ** 2 * 0.99


def families() -> Workload:
    """Two large subtrees of short and long outputs, and 40 subtrees of 10 requests each."""
    parent = np.array([-1] + [0] * 42, np.int32)
    tree = PrefixTree(parent, np.array([0] + [50] * 42))
    node = np.concatenate([np.repeat([1, 2], 2000), np.repeat(np.arange(3, 43), 10)])
    rng = np.random.default_rng(5)
    output = np.concatenate(
        [rng.poisson(20, 2000) + 1, rng.poisson(3000, 2000) + 1, np.full(400, 2)]
    )
    return make_workload("families", np.full(4400, 100), output, tree=tree, node=node)


def test_groups_follow_the_prefix_tree() -> None:
    pool = families()
    estimator = make_estimator("survival", pool, np.random.default_rng(0))
    assert isinstance(estimator, SurvivalEstimator)
    mean = estimator.final().mean
    assert mean[0] == pytest.approx(21, rel=0.1)
    assert mean[2000] == pytest.approx(3000, rel=0.1)
    # Too small to speak alone, the many share one group; the large ones are no part of it.
    assert mean[4000:] == pytest.approx(np.full(400, 2.0), rel=0.1)


def test_estimates_do_not_depend_on_requests_that_were_not_observed() -> None:
    pool = families()
    changed = pool.output_tokens.copy()
    changed[
        np.setdiff1d(np.arange(4400), SurvivalEstimator(pool, np.random.default_rng(0)).sample)
    ] = 7
    other = make_workload("other", pool.prompt_tokens, changed, tree=pool.tree, node=pool.node)
    a = make_estimator("survival", pool, np.random.default_rng(0)).final()
    b = make_estimator("survival", other, np.random.default_rng(0)).final()
    assert np.array_equal(a.mean, b.mean)


def test_a_request_that_outlives_its_curve_is_believed_to_end_before_long() -> None:
    """Far beyond a curve both ends of a conditional chance are nothing; it is not one."""
    curves = SurvivalCurves.lognormal(np.array([16_000.0]), np.array([16_000.0**2]))
    group = np.zeros(1, np.int64)
    for generated in (17_500.0, 25_000.0, 100_000.0):
        left, _ = curves.residual(group, np.array([generated]))
        assert 0 < left[0] < generated
        (alive,) = curves.still_running(group, np.array([generated]), np.array([generated]))
        assert alive[0] < 0.05


def test_a_group_without_observations_takes_the_curve_of_all() -> None:
    """As on a replica whose part of the pool has no sample of a small group."""
    tree = PrefixTree(np.array([-1, 0, 0], np.int32), np.array([0, 10, 10]))
    node = np.repeat([1, 2], 60)
    w = make_workload("two", np.full(120, 20), np.full(120, 500), tree=tree, node=node)
    estimator = SurvivalEstimator(w, np.random.default_rng(0))
    seen = np.arange(40)  # of the first group alone
    estimates = estimator.estimate(seen, np.full(40, 500), np.ones(40, np.bool_))
    assert estimates.mean[60:] == pytest.approx(estimates.mean[0], rel=0.1)
    assert estimates.survival is not None
    assert estimates.survival.quantile(int(estimates.survival.group[60]), 0.5) > 400
