"""The length estimates of `ratio`, and the steps at which it updates them."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bssim.sim.engine import UNLIMITED, EngineView
from bssim.sim.lengths import OutputEstimates, OutputEstimator, SurvivalCurves
from bssim.sim.schedulers.observation import tokens_seen
from bssim.sim.schedulers.ratio.options import RatioOptions
from bssim.sim.workload import Workload

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

MATURE_STEPS = 1000
"""Before this step, estimates cannot tell whether KV limits the paced requests. No request can
have generated more tokens than this, so long outputs look short."""
FIRST_LESSON_STEPS = 500
LESSON_GROWTH = 1.2
"""Step of the first look at output lengths, and the factor from each look to the next."""
CHANGED = 0.1
"""A relative change of any estimate above this leads to a new order."""


class Learner:
    """Estimates for one replica, from its part of the sample or from all admitted requests."""

    def __init__(
        self,
        workload: Workload,
        mine: BoolArray,
        estimator: OutputEstimator,
        options: RatioOptions,
    ) -> None:
        """``mine``: shape (n,), whether a request belongs to the replica."""
        self._workload = workload
        self._estimator = estimator
        self._uses_all = estimator.uses_all and options.learning
        self._kaplan_meier = options.kaplan_meier
        self._done = np.zeros(len(workload), np.bool_)
        self._finished: list[int] = []
        """Requests that finished since the last look."""
        # Rarest prefixes first, because requests with a rare prefix may be the ones that fill the
        # memory. Requests of one node stay together, because the sample of a small pool with many
        # subtrees is a large part of the pool.
        sample = estimator.sample[mine[estimator.sample]]
        node = workload.node[sample]
        self.sample: IntArray = sample[np.lexsort((node, workload.requests_below[node]))]
        self.lesson_at = 0 if len(sample) else UNLIMITED
        """The step of the next look."""
        self.mature = not len(sample)
        """Whether the last look saw enough to judge. See `MATURE_STEPS`."""

    def known(self) -> OutputEstimates:
        """Return the estimates of an estimator that needs no sample."""
        return self._estimator.final()

    def finished(self, requests: Iterable[int]) -> None:
        """Note that the lengths of requests are now known."""
        self._finished += requests

    def look(self, engine: EngineView, running: Iterable[int]) -> OutputEstimates:
        """Return estimates from all observations so far, and set the next look."""
        self._done[self._finished] = True
        self._finished.clear()
        if self._uses_all:
            now = np.array(list(running), dtype=np.int64)
            requests = np.concatenate([np.flatnonzero(self._done), now])
        else:
            requests = self.sample
        done = self._done[requests]
        generated = tokens_seen(self._workload, requests, done, engine)
        if not self._uses_all and bool(done.all()):
            self.lesson_at = UNLIMITED
        else:
            self.lesson_at = max(FIRST_LESSON_STEPS, int(LESSON_GROWTH * engine.step))
        self.mature = engine.step >= MATURE_STEPS or self.lesson_at == UNLIMITED
        return self._estimator.estimate(requests, generated, done)

    def curves(self, estimates: OutputEstimates) -> SurvivalCurves:
        """Return the estimator's survival curves, or lognormal curves with its moments."""
        if estimates.survival is not None and self._kaplan_meier:
            return estimates.survival
        return SurvivalCurves.lognormal(estimates.mean, estimates.second_moment, estimates.group)


def moved(new: OutputEstimates, old: OutputEstimates, among: BoolArray) -> bool:
    """Return whether the estimate of any request in ``among`` changed enough for a new order."""
    change = np.abs(new.mean - old.mean) > CHANGED * old.mean
    return bool((change & among).any())
