"""A replica: an engine and the costs of its steps. Other modules define the processes.

The engine core decides which tokens run in which step. This does not depend on the clock while no
other process changes its queue. The core therefore runs a few thousand steps ahead, the cost model
prices them in one call, and a process sleeps until they end.
"""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from bssim.cost_models.step_cost import CostModel, OverlapModel, StepCost
from bssim.sim.engine import EngineCore, StepColumns
from bssim.sim.result import Timeline

FloatArray = npt.NDArray[np.float64]
Process = Generator[simpy.Event, Any, None]

STEPS_PER_TIMEOUT = 4096


class Replica:
    """Records the costs of the steps of one `EngineCore`."""

    def __init__(
        self,
        core: EngineCore,
        cost_model: CostModel,
        overlap: OverlapModel,
        batch_multiple: int,
        *,
        keep_timeline: bool,
    ) -> None:
        self.core = core
        self.costs: list[StepCost] = []
        """Sums over the steps of each call of `price`."""
        self._cost_model = cost_model
        self._overlap = overlap
        self._batch_multiple = batch_multiple
        self._keep = keep_timeline
        self._seconds = [np.zeros(0)]
        self._ends: list[FloatArray] = []
        self._pieces: list[Timeline] = []

    def price(self, columns: StepColumns) -> FloatArray:
        """Return the wall seconds of steps, shape (steps,), and record their costs."""
        work = columns.work(self._batch_multiple)
        cost = self._cost_model.step_cost(work)
        step_s = np.asarray(self._overlap.step_seconds(cost), dtype=np.float64)
        self.costs.append(cost.total())
        self._seconds.append(step_s)
        if self._keep:
            held = columns.held_blocks(self.core.block_size) * self.core.block_size
            self._pieces.append(Timeline(work, cost, step_s, held, columns.running_requests()))
        return step_s

    def live(self, env: simpy.Environment, step_s: FloatArray) -> Process:
        """Advance the clock through consecutive steps, and record when each of them ends.

        For replicas with possible gaps between steps.
        """
        if len(step_s):
            ends = env.now + np.cumsum(step_s)
            self._ends.append(ends)
            yield env.timeout(float(ends[-1]) - env.now)

    @property
    def step_s(self) -> FloatArray:
        """Wall seconds of every step, shape (steps,)."""
        return np.concatenate(self._seconds)

    @property
    def end_s(self) -> FloatArray:
        """End time of each step, shape (steps,)."""
        if self._ends:
            return np.concatenate(self._ends)
        return np.cumsum(self.step_s)

    def timeline(self) -> Timeline:
        """Return all steps as one timeline. Requires ``keep_timeline``."""
        return replace(
            Timeline.joined(self._pieces),
            start_s=self.end_s - self.step_s if self._ends else None,
            admitted=np.array(self.core.order, np.int64),
            admission_step=np.array(self.core.admission_step, np.int64),
            preemption_step=np.array(self.core.preemption_step, np.int64),
        )
