"""Choose the order for the rest of a run, in a separate process.

The engine continues while the orders are simulated. The other process reads a pickled `Question`
and writes a pickled `Choice`.
"""

import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bssim.cost_models.overlap import SequentialOverlap
from bssim.cost_models.step_cost import CostModel
from bssim.sim.cluster import run_replicas
from bssim.sim.engine import EngineConfig
from bssim.sim.lengths import OutputEstimator
from bssim.sim.schedulers import Plan
from bssim.sim.setup import Setup
from bssim.sim.workload import Workload

RUN_TIME_ORDERS = ("fcfs", "dfs", "dfs_memory_first", "dfs_compute_first", "ratio")
"""The orders from which ``auto`` chooses."""
MARGIN = 0.01
"""An order must be faster by this share than the best one before it in the list."""
INLINE_REQUESTS = 2000
"""Pools up to this size are simulated in this process, which is faster than starting another."""


@dataclass(frozen=True, eq=False)
class Question:
    """The remaining requests, the engine, and what is known about both."""

    rest: Workload
    """Output lengths are drawn from the estimates."""
    estimator: OutputEstimator
    engine: EngineConfig
    """``num_gpu_blocks`` is set."""
    cost_model: CostModel
    schedulers: tuple[str, ...]
    seed: int

    def plan(self, scheduler: str) -> Plan:
        """Return the plan of a scheduler for one replica of the engine."""
        return self._setup.plan(scheduler, self.estimator, seed=self.seed)

    @property
    def _setup(self) -> Setup:
        assert self.engine.num_gpu_blocks is not None
        blocks = self.engine.num_gpu_blocks - 1
        return Setup(self.rest, self.engine, blocks, self.cost_model, SequentialOverlap())

    def simulate(self, scheduler: str) -> "Forecast":
        """Simulate the rest with a scheduler."""
        _, outcome = run_replicas(self._setup, self.plan(scheduler))
        return Forecast(scheduler, outcome.makespan_s, np.sort(outcome.finish_s))


@dataclass(frozen=True, eq=False)
class Forecast:
    """The simulated rest of a run."""

    scheduler: str
    makespan_s: float
    finish_s: npt.NDArray[np.float64]
    """Shape (requests,), sorted: seconds until the k-th request finishes."""


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen order, and the simulated seconds of every order tried."""

    forecast: Forecast
    tried: dict[str, float]


def choose(question: Question) -> Choice:
    """Simulate every scheduler and return the fastest. The first wins within `MARGIN`."""
    best: Forecast | None = None
    tried = {}
    for scheduler in question.schedulers:
        forecast = question.simulate(scheduler)
        tried[scheduler] = forecast.makespan_s
        if best is None or forecast.makespan_s < (1.0 - MARGIN) * best.makespan_s:
            best = forecast
    assert best is not None
    return Choice(best, tried)


class Planning:
    """A choice in progress. Small questions are answered immediately."""

    def __init__(self, question: Question) -> None:
        self._choice: Choice | None = None
        if len(question.rest) <= INLINE_REQUESTS:
            self._choice = choose(question)
            return
        self._folder = tempfile.TemporaryDirectory(prefix="bssim-plan-")
        asked = Path(self._folder.name) / "question"
        self._answer = Path(self._folder.name) / "choice"
        asked.write_bytes(pickle.dumps(question))
        answer = f"from {__name__} import answer; import sys; answer(*sys.argv[1:])"
        command = [sys.executable, "-c", answer, str(asked), str(self._answer)]
        paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # finds the same bssim
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=paths)

    def result(self, wait: bool = False) -> Choice | None:
        """Return the choice, or None if it is not ready. Raises RuntimeError if planning failed."""
        if self._choice is None:
            code = self._process.wait() if wait else self._process.poll()
            if code is None:
                return None
            if code:
                raise RuntimeError(f"planning ended with exit status {code}")
            self._choice = pickle.loads(self._answer.read_bytes())
            self._folder.cleanup()
        return self._choice

    def cancel(self) -> None:
        """Stop planning; the choice is no longer needed."""
        if self._choice is None:
            self._process.kill()
            self._process.wait()
            self._folder.cleanup()


def answer(asked: str, choice: str) -> None:
    """Read the question from file ``asked`` and write the answer to file ``choice``."""
    Path(choice).write_bytes(pickle.dumps(choose(pickle.loads(Path(asked).read_bytes()))))
