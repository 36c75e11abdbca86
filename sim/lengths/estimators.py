"""What a scheduler assumes about output lengths, and how it learns them.

A simulation knows every output length, but a scheduler must not. It gets an `OutputEstimator`. Some
estimators read the true lengths (``oracle``, ``mean``). ``sampled`` runs a few requests first
(paper section 5.1) and learns from the tokens that they have generated so far, finished or not.
To add one, write a class here and a line in `_ESTIMATORS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError, unknown_name
from bssim.sim.lengths.survival import SurvivalCurves, kaplan_meier
from bssim.sim.workload import Workload

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SAMPLED_SHARE = 0.01
"""Paper section 5.1: 1 % of the requests run first to learn output lengths."""
MIN_SAMPLES = 30
"""Fewest samples per stratum, and per subtree with its own statistics. A uniform 1 % of 400,000
requests contains only one to five of the long requests that cause most memory time."""

SECOND_MOMENT_PRIOR = 300.0
"""Weight, in samples, of the exponential's second moment, 2 E[d]^2, as a prior. From n exponential
lengths, E[d^2] has a relative standard error of sqrt(5 / n): 41 % for n = 30, which makes plans
differ between seeds, and 13 % for n = 300."""

LARGE_SHARE = 0.01
"""A subtree under the root with at least this share of the requests is its own stratum."""


@dataclass(frozen=True, eq=False)
class OutputEstimates:
    """Estimates of each request's output length ``d``."""

    mean: FloatArray
    """Shape (n,): E[d], tokens."""
    second_moment: FloatArray
    """Shape (n,): E[d^2]; KV reads grow with it, not with E[d]^2 (paper section 4, Mem(r))."""
    survival: SurvivalCurves | None = None
    """The whole distribution, if the estimator provides more than two moments."""
    known: bool = False
    """Whether these are the true lengths. A second moment of E[d]^2 does not imply it."""
    group: npt.NDArray[np.int32] | None = None
    """Shape (n,): requests with the same number have the same estimates. None: not known."""


class OutputEstimator(Protocol):
    """Turns observations of `sample` into estimates for all requests."""

    @property
    def name(self) -> str:
        """The name on the command line."""

    @property
    def sample(self) -> IntArray:
        """Requests to run first, in this order; empty if no sample is needed."""

    @property
    def uses_all(self) -> bool:
        """Whether it learns from every admitted request, not only from the sample."""

    def estimate(
        self, requests: IntArray, generated: IntArray, done: npt.NDArray[np.bool_]
    ) -> OutputEstimates:
        """Estimate all requests from observed ones.

        ``generated`` and ``done``: shape of ``requests``; tokens generated so far, and whether the
        request has finished.
        """

    def final(self) -> OutputEstimates:
        """Return the estimates after the whole sample has finished."""


@dataclass(frozen=True, eq=False)
class KnownEstimator:
    """Estimates that no observation changes."""

    name: str
    estimates: OutputEstimates

    @property
    def sample(self) -> IntArray:
        """Empty: no sample is needed."""
        return np.zeros(0, np.int64)

    @property
    def uses_all(self) -> bool:
        """False: observations change nothing."""
        return False

    def estimate(
        self, requests: IntArray, generated: IntArray, done: npt.NDArray[np.bool_]
    ) -> OutputEstimates:
        """See `OutputEstimator.estimate`."""
        return self.estimates

    def final(self) -> OutputEstimates:
        """See `OutputEstimator.final`."""
        return self.estimates


class SampledEstimator:
    """Subtree statistics of a sample, stratified over sources and large subtrees under the root.

    Small subtrees share the stratum of their source. Otherwise a pool of many small subtrees would
    be sampled completely.

    A request takes the statistics of the smallest subtree around it with `MIN_SAMPLES` samples,
    without the subtrees inside that also have `MIN_SAMPLES`. (The paper uses the request's subtree
    if it has any sample, or else the nearest ancestor.) A sampled request that still runs at ``g``
    tokens is censored: its remaining length is assumed to be exponential with the subtree's
    maximum-likelihood mean, tokens generated / requests finished. A subtree without a finished
    request counts as if one had finished. The second moment is shrunk toward the exponential's
    (`SECOND_MOMENT_PRIOR`), and less so for a larger sampled part of the subtree. After the sample
    has finished, the mean is the plain mean.

    Groups come from the whole sample, even if a replica sees only a part of it.
    """

    name = "sampled"
    uses_all = False

    def __init__(
        self,
        workload: Workload,
        rng: np.random.Generator,
        share: float = SAMPLED_SHARE,
        min_samples: int = MIN_SAMPLES,
    ) -> None:
        self._workload = workload
        self._min_samples = min_samples
        tree = workload.tree
        # Children of the root are ranges of preorder numbers; the root's own requests are top 0.
        top = np.cumsum(tree.parent == 0)[workload.node]
        large = np.bincount(top) >= LARGE_SHARE * len(workload)
        stratum = np.where(large[top], top, 0) * len(workload.source_names) + workload.source
        _, group = np.unique(stratum, return_inverse=True)
        shuffled = rng.permutation(len(workload))
        by_group = shuffled[np.argsort(group[shuffled], kind="stable")]
        sizes = np.bincount(group)
        wanted = np.minimum(sizes, np.maximum(min_samples, np.ceil(share * sizes).astype(np.int64)))
        rank = np.arange(len(by_group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        picked = by_group[rank < np.repeat(wanted, sizes)]
        self.sample: IntArray = rng.permutation(picked).astype(np.int64)
        self._group, self._num_groups = self._groups()
        self._group_size = np.bincount(self._group, minlength=self._num_groups)

    def _groups(self) -> tuple[npt.NDArray[np.int32], int]:
        """Return the group of every request, and the number of groups.

        A group is a subtree with enough samples (or sampled completely), without the groups inside.
        """
        tree, workload = self._workload.tree, self._workload
        count = np.bincount(workload.node[self.sample], minlength=tree.num_nodes).tolist()
        size = np.bincount(workload.node, minlength=tree.num_nodes).tolist()
        parent = tree.parent.tolist()
        speaks = [True] * tree.num_nodes
        for v in range(tree.num_nodes - 1, 0, -1):
            speaks[v] = count[v] >= self._min_samples or 0 < count[v] == size[v]
            if not speaks[v]:
                count[parent[v]] += count[v]
                size[parent[v]] += size[v]
        number = np.cumsum(speaks) - 1
        of_node = number.tolist()
        for v in range(1, tree.num_nodes):
            if not speaks[v]:
                of_node[v] = of_node[parent[v]]
        return np.asarray(of_node, dtype=np.int32)[workload.node], int(number[-1]) + 1

    def estimate(
        self, requests: IntArray, generated: IntArray, done: npt.NDArray[np.bool_]
    ) -> OutputEstimates:
        """See `OutputEstimator.estimate`."""
        at = self._group[requests]
        g = generated.astype(np.float64)
        open_ = (~done).astype(np.float64)

        def total(weights: FloatArray) -> FloatArray:
            return np.bincount(at, weights, self._num_groups).astype(np.float64)

        count = total(np.ones(len(g)))
        exposure = total(g)
        rest = exposure / np.maximum(total(done.astype(np.float64)), 1.0)
        mean = exposure + total(open_) * rest
        second = total(g * g) + 2 * rest * total(open_ * g) + 2 * rest**2 * total(open_)
        # A group without a sample on this replica gets the mean of all groups.
        unseen = count == 0
        mean = np.where(unseen, mean.sum() / max(count.sum(), 1.0), mean / np.maximum(count, 1.0))
        second = np.where(
            unseen, second.sum() / max(count.sum(), 1.0), second / np.maximum(count, 1.0)
        )
        prior = SECOND_MOMENT_PRIOR * (1.0 - count / np.maximum(self._group_size, 1))
        second = (count * second + prior * 2.0 * mean**2) / np.maximum(count + prior, 1.0)
        return self._below_caps(
            np.maximum(mean, 1.0)[self._group], np.maximum(second, 1.0)[self._group]
        )

    def _below_caps(self, mean: FloatArray, second: FloatArray) -> OutputEstimates:
        """Return moments that are consistent with each request's own cap."""
        caps = self._workload.max_tokens
        if caps is None:
            return OutputEstimates(mean, second, group=self._group)
        most = np.maximum(caps.astype(np.float64), 1.0)
        mean = np.minimum(mean, most)
        return OutputEstimates(mean, np.clip(second, mean**2, most * mean))

    def final(self) -> OutputEstimates:
        """See `OutputEstimator.final`."""
        done = np.ones(len(self.sample), np.bool_)
        return self.estimate(self.sample, self._workload.output_tokens[self.sample], done)


class SurvivalEstimator(SampledEstimator):
    """Kaplan-Meier curves of groups of requests, from the sample and all later admissions.

    A group is a subtree with `MIN_SAMPLES` sampled requests, without the groups inside it. Smaller
    subtrees belong to the group of their nearest ancestor that is large enough. Groups depend only
    on the prefix tree, not on sources.
    """

    name = "survival"
    uses_all = True

    def estimate(
        self, requests: IntArray, generated: IntArray, done: npt.NDArray[np.bool_]
    ) -> OutputEstimates:
        """See `OutputEstimator.estimate`."""
        curves = kaplan_meier(self._group, self._num_groups, requests, generated, done)
        unseen = np.bincount(self._group[requests], minlength=self._num_groups) == 0
        if unseen.any():  # a group without a sample on this replica gets the curve of all
            everyone = kaplan_meier(np.zeros_like(self._group), 1, requests, generated, done)
            table = np.where(unseen[:, None], everyone.log_survival, curves.log_survival)
            curves = SurvivalCurves(table, self._group)
        caps = self._workload.max_tokens
        if caps is None:
            mean, second = curves.moments
            return OutputEstimates(mean[self._group], second[self._group], curves)
        most = np.maximum(caps.astype(np.float64), 1.0)
        mean, second = curves.capped_moments(most)
        return OutputEstimates(mean, second, curves.capped(most))


def _oracle(workload: Workload, rng: np.random.Generator) -> OutputEstimator:
    d = workload.output_tokens.astype(np.float64)
    return KnownEstimator("oracle", OutputEstimates(d, d * d, known=True))


def _sampled_before(workload: Workload, rng: np.random.Generator) -> OutputEstimator:
    return KnownEstimator("sampled_before", SampledEstimator(workload, rng).final())


def _mean(workload: Workload, rng: np.random.Generator) -> OutputEstimator:
    d = workload.output_tokens.astype(np.float64)
    count = np.maximum(np.bincount(workload.source), 1)
    mean = np.bincount(workload.source, d) / count
    second = np.bincount(workload.source, d * d) / count
    return KnownEstimator("mean", OutputEstimates(mean[workload.source], second[workload.source]))


def _mean_only(workload: Workload, rng: np.random.Generator) -> OutputEstimator:
    mean = _mean(workload, rng).final().mean
    return KnownEstimator("mean_only", OutputEstimates(mean, mean * mean))


def _max_tokens(workload: Workload, rng: np.random.Generator) -> OutputEstimator:
    if workload.max_tokens is None:
        raise InputError(
            "output_lengths",
            f"'max_tokens', but workload {workload.name!r} has no max_tokens column",
            "an input format that carries one (OpenAI batch JSONL)",
        )
    d = workload.max_tokens.astype(np.float64)
    return KnownEstimator("max_tokens", OutputEstimates(d, d * d))


_ESTIMATORS: dict[str, Callable[[Workload, np.random.Generator], OutputEstimator]] = {
    "oracle": _oracle,
    "sampled": SampledEstimator,
    "sampled_before": _sampled_before,
    "survival": SurvivalEstimator,
    "mean": _mean,
    "mean_only": _mean_only,
    "max_tokens": _max_tokens,
}


def estimator_names() -> list[str]:
    """Return the valid values of ``output_lengths``."""
    return list(_ESTIMATORS)


def make_estimator(name: str, workload: Workload, rng: np.random.Generator) -> OutputEstimator:
    """Return the estimator of that name.

    ``oracle`` (true lengths), ``sampled``, ``sampled_before`` (the result of the same sample, known
    before the run), ``survival`` (Kaplan-Meier), ``mean`` (true moments of each source),
    ``mean_only`` (the same with E[d]^2 instead of E[d^2], as in the paper), ``max_tokens``. Raises
    InputError for an unknown name.
    """
    if name not in _ESTIMATORS:
        raise unknown_name("output_lengths", name, _ESTIMATORS)
    return _ESTIMATORS[name](workload, rng)
