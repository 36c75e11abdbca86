"""What schedulers believe of output lengths: closed forms, strata, censoring, ancestors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssim.errors import InputError
from bssim.sim.lengths import (
    MIN_SAMPLES,
    SAMPLED_SHARE,
    SECOND_MOMENT_PRIOR,
    SampledEstimator,
    estimator_names,
    make_estimator,
)
from bssim.sim.workload import Workload, from_groups, make_workload


def grouped(sizes: list[int], outputs: np.ndarray | None = None, **columns) -> Workload:
    """Groups that share 4 tokens each, directly under the root; -1 labels stand for none."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    tree, node = from_groups(group, [4] * len(sizes))
    d = np.ones(len(group)) if outputs is None else outputs
    return make_workload("pool", np.full(len(group), 6), d, tree=tree, node=node, **columns)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_oracle_mean_and_max_tokens():
    source = [0, 0, 1, 1]
    w = make_workload(
        "pool", [1] * 4, [2, 4, 10, 30], source=source, source_names=["a", "b"], max_tokens=[9] * 4
    )
    expected = {
        "oracle": ([2, 4, 10, 30], [4, 16, 100, 900]),
        "mean": ([3, 3, 20, 20], [10, 10, 500, 500]),
        "mean_only": ([3, 3, 20, 20], [9, 9, 400, 400]),
        "max_tokens": ([9] * 4, [81] * 4),
    }
    for name, (mean, second) in expected.items():
        estimator = make_estimator(name, w, rng())
        assert len(estimator.sample) == 0
        assert estimator.final().mean.tolist() == mean
        assert estimator.final().known == (name == "oracle")
        assert estimator.final().second_moment.tolist() == second


def test_bad_names_and_missing_columns_are_input_errors():
    w = grouped([3])
    with pytest.raises(InputError, match=r"'oracel'.*did you mean 'oracle'"):
        make_estimator("oracel", w, rng())
    with pytest.raises(InputError, match="no max_tokens column"):
        make_estimator("max_tokens", w, rng())
    assert "sampled" in estimator_names()


def test_every_large_subtree_and_every_source_has_its_samples():
    sizes = [8_000, 300, 40, *[2] * 500]
    source = np.repeat([0, 0, 1, *[0] * 500], sizes)
    w = grouped(sizes, source=source, source_names=["a", "b"])
    sample = SampledEstimator(w, rng()).sample
    assert len(set(sample.tolist())) == len(sample)
    taken = np.bincount(np.repeat(np.arange(len(sizes)), sizes)[sample], minlength=len(sizes))
    assert taken[0] == 8_000 * SAMPLED_SHARE
    assert taken[1] == MIN_SAMPLES  # more than a hundredth of the pool
    assert taken[2] == MIN_SAMPLES  # fewer, but a source of its own
    assert taken[3:].sum() == MIN_SAMPLES  # pairs are not all sampled: they are one stratum
    assert len(SampledEstimator(grouped([5]), rng()).sample) == 5


def test_a_finished_sample_gives_each_subtree_its_mean_and_a_cautious_second_moment():
    d = np.concatenate([np.arange(1, 101), np.full(100, 7)])
    w = grouped([100, 100], d)
    estimator = SampledEstimator(w, rng(), min_samples=30)
    final = estimator.final()
    first = estimator.sample[estimator.sample < 100]
    assert final.mean[:100] == pytest.approx(d[first].mean())
    assert final.mean[100:] == pytest.approx(7)
    # between the sample's own and the exponential's 2 E[d]^2: 30 samples, 70 % of the group unseen
    own, exponential = (d[first] ** 2.0).mean(), 2 * d[first].mean() ** 2
    prior = SECOND_MOMENT_PRIOR * 0.7
    shrunk = (30 * own + prior * exponential) / (30 + prior)
    assert final.second_moment[:100] == pytest.approx(shrunk)


def test_what_a_sample_said_before_costs_nothing_to_learn():
    w = grouped([100, 100], np.concatenate([np.arange(1, 101), np.full(100, 7)]))
    during, before = (make_estimator(n, w, rng()) for n in ("sampled", "sampled_before"))
    assert len(during.sample) > 0 == len(before.sample)
    assert before.final().mean.tolist() == during.final().mean.tolist()
    assert not before.final().known


def test_a_full_sample_is_the_truth():
    d = np.arange(1, 61)
    estimator = SampledEstimator(grouped([60], d), rng(), share=1.0)
    assert sorted(estimator.sample.tolist()) == list(range(60))
    assert estimator.final().mean == pytest.approx(d.mean())
    assert estimator.final().second_moment == pytest.approx((d**2.0).mean())


def test_running_requests_are_censored_not_short():
    w = grouped([40], np.full(40, 1000))
    estimator = SampledEstimator(w, rng(), share=1.0)
    requests = np.arange(40)
    done = requests < 10
    generated = np.where(done, 100, 300)
    estimates = estimator.estimate(requests, generated, done)
    # exponential lengths: tokens generated over requests finished, 10 x 100 + 30 x 300 over 10
    rest = 1000.0
    assert estimates.mean == pytest.approx((10 * 100 + 30 * (300 + rest)) / 40)
    second = 10 * 100**2 + 30 * (300**2 + 2 * 300 * rest + 2 * rest**2)
    assert estimates.second_moment == pytest.approx(second / 40)
    none_done = estimator.estimate(requests, np.full(40, 50), np.zeros(40, np.bool_))
    assert none_done.mean == pytest.approx(50 + 40 * 50)  # counted as one finish


@given(st.integers(1, 400), st.integers(1, 400))
def test_estimates_grow_with_what_was_generated(few, more):
    w = grouped([30])
    estimator = SampledEstimator(w, rng())
    running = np.zeros(30, np.bool_)
    low, high = sorted((few, more))
    means = [
        estimator.estimate(estimator.sample, np.full(30, g), running).mean[0] for g in (low, high)
    ]
    assert 1 <= means[0] <= means[1]


def test_a_subtree_with_few_samples_asks_its_nearest_ancestor():
    # Under one stem a family of 50 with outputs of 10, and one of 50 with outputs of 90 and few
    # samples; 50 requests share nothing, with outputs of 500.
    group = np.repeat([1, 2, -1], [50, 50, 50])
    tree, node = from_groups(group, [4, 4, 4], parent_group=[-1, 0, 0])
    d = np.repeat([10, 90, 500], 50)
    w = make_workload("pool", np.full(150, 12), d, tree=tree, node=node)

    def told(min_samples: int) -> list[float]:
        estimator = SampledEstimator(w, rng(), share=0.5, min_samples=min_samples)
        mean = estimator.final().mean
        return [mean[0], mean[50], mean[100]]

    assert told(10) == [10, 90, 500]
    # neither family has 40 samples: the stem speaks for both, and not for those outside it
    few = told(40)
    assert few[0] == few[1]
    assert 10 < few[0] < 90
    assert few[2] == 500


def test_requests_that_share_nothing_are_not_taken_for_a_source_that_does():
    # 900 chats hang on the root beside 100 long answers behind a system prompt
    tree, node = from_groups(np.repeat([-1, 0], [900, 100]), [1])
    d = np.repeat([300, 16_000], [900, 100])
    w = make_workload("pool", np.full(1000, 50), d, tree=tree, node=node)
    mean = SampledEstimator(w, rng()).final().mean
    assert (mean[0], mean[-1]) == (300, 16_000)


def test_a_replica_with_few_samples_still_tells_sources_apart():
    d = np.concatenate([np.full(400, 10), np.full(400, 5000)])
    w = grouped([400, 400], d)
    estimator = SampledEstimator(w, rng())
    part = estimator.sample[: len(estimator.sample) // 4]  # fewer than MIN_SAMPLES of either
    assert 0 < np.sum(d[part] == 10) < MIN_SAMPLES
    assert 0 < np.sum(d[part] == 5000) < MIN_SAMPLES
    mean = estimator.estimate(part, d[part], np.ones(len(part), np.bool_)).mean
    assert mean[0] == 10
    assert mean[-1] == 5000


@pytest.mark.parametrize("name", ["sampled", "survival", "max_tokens"])
def test_no_estimate_exceeds_the_request_s_own_cap(name: str) -> None:
    """Short and long caps under one root: the sample of one must not speak for the other."""
    rng = np.random.default_rng(0)
    caps = np.where(np.arange(4000) % 2 == 0, 8, 2000)
    output = np.minimum(rng.lognormal(5.5, 1.0, 4000).astype(np.int64) + 1, caps)
    pool = make_workload("caps", np.full(4000, 50), output, max_tokens=caps)
    estimates = make_estimator(name, pool, rng).final()
    assert (estimates.mean <= caps).all()
    assert (estimates.second_moment <= caps.astype(float) ** 2).all()
    assert (estimates.second_moment >= estimates.mean**2 * (1 - 1e-9)).all()
    if estimates.survival is not None:
        curves = estimates.survival
        group = curves.group.astype(np.int64)
        assert (curves.at(group, caps * 1.2) < -50).all()
