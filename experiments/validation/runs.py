"""One engine that serves several schedules, each of which is also simulated."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bssim.backends import ReplayResult, Row, Session, replay
from bssim.backends.vllm import VllmBackend
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.step_cost import CostModel
from bssim.experiments.validation.config import ValidationConfig
from bssim.sim.engine import AdmissionPolicy
from bssim.sim.result import SimulationResult
from bssim.sim.schedule import Schedule
from bssim.sim.setup import Setup
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload, select
from bssim.wording import counted

Say = Callable[[str], None]


class Runs:
    """One engine that serves several schedules."""

    def __init__(
        self,
        config: ValidationConfig,
        backend: VllmBackend,
        session: Session,
        folder: Path,
        say: Say,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.hardware = load_hardware(config.hardware)
        self._config, self._backend, self._session = config, backend, session
        self._folder, self._say, self._progress = folder, say, progress

    def run_time(
        self, name: str, pool: Workload, scheduler: str, cost_model: CostModel
    ) -> tuple[SimulationResult, list[Row], ReplayResult]:
        """Simulate a scheduler, and replay its policy inside the engine."""
        planned, rows = self._simulate(pool, scheduler, cost_model)
        policies = [self._policy(pool, scheduler, cost_model)]
        return planned, rows, self.replay(name, pool, planned.schedule, policies)

    def taking_turns(
        self, pool: Workload, schedulers: Sequence[str], cost_model: CostModel, repeats: int
    ) -> dict[str, tuple[SimulationResult, list[Row], ReplayResult]]:
        """Simulate orders and replay each ``repeats`` times, alternating between orders.

        A replay queues the scheduler's whole order at the start, and the simulation does the same:
        an order cannot express a policy that holds requests back.

        All replays of an order take the same steps. A step's seconds are the minimum over replays,
        because other work on the machine only adds to its CPU time. The orders alternate because
        the speed of a machine varies over time.
        """
        simulated, schedules = {}, {}
        for scheduler in schedulers:
            schedules[scheduler] = self._simulate(pool, scheduler, cost_model)[0].schedule
            ordered = select(pool, schedules[scheduler].order)
            simulated[scheduler] = self._simulate(ordered, "fcfs", cost_model)
        replays: dict[str, list[ReplayResult]] = {name: [] for name in schedulers}
        for turn in range(repeats):
            for name, schedule in schedules.items():
                replays[name].append(self.replay(f"{pool.name}-{name}-{turn}", pool, schedule))
        return {name: (*simulated[name], _fastest(replays[name])) for name in schedulers}

    def replay(
        self,
        name: str,
        pool: Workload,
        schedule: Schedule,
        policies: list[AdmissionPolicy] | None = None,
    ) -> ReplayResult:
        """Serve a schedule; its journal is named ``name``."""
        self._say(f"replaying {name}: {counted(len(pool), 'request')}")
        measured = replay(
            self._backend,
            pool,
            schedule,
            self._folder / f"{name}.json",
            session=self._session,
            policies=policies,
            progress=self._progress,
        )
        self._say(f"  {measured.throughput_tok_s:,.0f} tokens/s in {measured.wall_s:.1f} s")
        return measured

    def _simulate(
        self, pool: Workload, scheduler: str, cost_model: CostModel
    ) -> tuple[SimulationResult, list[Row]]:
        rows: list[Row] = []
        result = simulate(
            pool,
            scheduler=scheduler,
            llm=self._backend.llm(),
            hardware=self.hardware,
            engine=self._session.engine,
            cost_model=cost_model,
            output_lengths=self._config.output_lengths,
            seed=self._config.seed,
            tp=self._config.tensor_parallel,
            on_step=rows.append,
        )
        return result, rows

    def _policy(self, pool: Workload, scheduler: str, cost_model: CostModel) -> AdmissionPolicy:
        """Return a fresh policy, planned with the seed and the random streams of `simulate`."""
        setup = Setup.of(
            pool,
            engine=self._session.engine,
            llm=self._backend.llm(),
            hardware=self.hardware,
            cost_model=cost_model,
            tp=self._config.tensor_parallel,
        )
        lengths, seed = self._config.output_lengths, self._config.seed
        return setup.plan(scheduler, lengths, seed=seed).policies[0]


def _fastest(replays: Sequence[ReplayResult]) -> ReplayResult:
    """Return a replay with the least seconds of each step; all took the same steps."""
    seconds = np.min(np.stack([replay.step_s for replay in replays]), axis=0).tolist()
    steps = [
        {**row, "seconds": value} for row, value in zip(replays[0].steps, seconds, strict=True)
    ]
    return replace(replays[0], steps=steps)
