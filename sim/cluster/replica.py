"""A replica as a SimPy process: steps become seconds, many steps to one timeout.

The engine core decides which tokens run in which step; nothing in that depends on the clock while
no other process can touch its queue. So it runs ahead a few thousand steps, the cost model prices
them in one go, and the replica sleeps until their end.
"""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from bssim.cost_models.step_cost import CostModel, OverlapModel, StepCost
from bssim.sim.engine.core import EngineCore
from bssim.sim.engine.step_columns import StepColumns
from bssim.sim.result import Timeline

STEPS_PER_TIMEOUT = 4096


class Replica:
    """Runs one `EngineCore` to its end and keeps what it cost."""

    def __init__(
        self,
        core: EngineCore,
        cost_model: CostModel,
        overlap: OverlapModel,
        batch_multiple: int,
        *,
        keep_timeline: bool,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """``progress`` is told, after each timeout, how many requests are done here."""
        self.core = core
        self.costs: list[StepCost] = []
        """Sums over the steps of each timeout."""
        self._cost_model = cost_model
        self._overlap = overlap
        self._batch_multiple = batch_multiple
        self._keep = keep_timeline
        self._progress = progress
        self._seconds: list[npt.NDArray[np.float64]] = []
        self._pieces: list[Timeline] = []

    def run(self, env: simpy.Environment) -> Generator[simpy.Event, Any, None]:
        """Advance until nothing is left: the SimPy process."""
        while self.core.unfinished:
            step_s = self._price(self.core.advance(STEPS_PER_TIMEOUT))
            if self._progress is not None:
                self._progress(self.core.finished)
            yield env.timeout(float(step_s.sum()))

    def _price(self, columns: StepColumns) -> npt.NDArray[np.float64]:
        """Return the wall seconds of steps, shape (steps,), and keep what they cost."""
        work = columns.work(self._batch_multiple)
        cost = self._cost_model.step_cost(work)
        step_s = np.asarray(self._overlap.step_seconds(cost), dtype=np.float64)
        self.costs.append(cost.total())
        self._seconds.append(step_s)
        if self._keep:
            held = columns.held_blocks() * self.core.block_size
            self._pieces.append(Timeline(work, cost, step_s, held, columns.running_requests()))
        return step_s

    @property
    def step_s(self) -> npt.NDArray[np.float64]:
        """Wall seconds of every step, shape (steps,)."""
        return np.concatenate(self._seconds) if self._seconds else np.zeros(0)

    def timeline(self) -> Timeline:
        """Return all steps as one timeline; only if it was kept."""
        return Timeline.joined(self._pieces)
