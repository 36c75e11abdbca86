"""Simulates and replays the same schedules, and reports how far apart they are.

1. Calibration: other pools than the one validated are replayed, and a cost model is fitted.
2. Validation: every scheduler plans the pool with that cost model, and its schedule is replayed.

Stock vLLM runs its operators one after another: this validates the sequential engine, the
scheduling and the order of requests. It cannot confirm gains from overlapping operators.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bssim.backends.base import ReplayResult, Row, Session
from bssim.backends.replay import replay
from bssim.backends.vllm.engine import VllmBackend
from bssim.cost_models.fitted import FittedCostModel
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import CostModel
from bssim.experiments.calibration.replay import HeldOutError, fit_replays, held_out_error
from bssim.experiments.validation.config import ValidationConfig
from bssim.sim.result import SimulationResult
from bssim.sim.schedulers.interface import AdmissionPolicy
from bssim.sim.setup import Setup
from bssim.sim.simulate import simulate
from bssim.sim.workload.combine import select
from bssim.sim.workload.workload import Workload
from bssim.wording import counted

TIE = 0.02
"""Measured throughputs closer than this are no ranking."""
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Comparison:
    """One schedule, simulated and measured."""

    scheduler: str
    simulated: SimulationResult
    simulated_steps: list[Row]
    measured: ReplayResult
    steps_error: HeldOutError
    predicted_s: npt.NDArray[np.float64]
    """Shape (measured steps,): the model's seconds for what the engine really scheduled."""

    @property
    def first_difference(self) -> int:
        """The first step that the engine composed otherwise, -1 where every step is equal."""
        keys = ("cached", "preempted", "free_blocks", "finished")
        ours, theirs = self.simulated_steps, self.measured.steps
        for k, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            same_order = list(a["scheduled"].items()) == list(b["scheduled"].items())
            if not same_order or any(a[key] != b[key] for key in keys):
                return k
        return -1 if len(ours) == len(theirs) else min(len(ours), len(theirs))

    def row(self, first: "Comparison") -> dict[str, Any]:
        """Return the line of the report; speed-ups are over the scheduler of ``first``."""
        simulated, measured = self.simulated.throughput_tok_s, self.measured.throughput_tok_s
        gain = simulated / first.simulated.throughput_tok_s
        true_gain = measured / first.measured.throughput_tok_s
        return {
            "scheduler": self.scheduler,
            "simulated_tok_s": simulated,
            "measured_tok_s": measured,
            "throughput_error": simulated / measured - 1,
            "simulated_speedup": gain,
            "measured_speedup": true_gain,
            "speedup_error": gain / true_gain - 1,
            "simulated_steps": self.simulated.steps,
            "measured_steps": len(self.measured.steps),
            "simulated_cached_tokens": self.simulated.cached_tokens,
            "measured_cached_tokens": self.measured.cached_tokens,
            "simulated_preemptions": self.simulated.preemptions,
            "measured_preemptions": self.measured.preemptions,
            "first_differing_step": self.first_difference,
            "step_error_median": self.steps_error.median,
            "step_error_p90": self.steps_error.p90,
        }


@dataclass(frozen=True, eq=False)
class Validation:
    """All that one validation found."""

    name: str
    model: FittedCostModel
    calibration: list[HeldOutError]
    comparisons: list[Comparison]

    @property
    def table(self) -> pd.DataFrame:
        """One row a scheduler, in the order of the config; the first is what speed-ups are over."""
        return pd.DataFrame([c.row(self.comparisons[0]) for c in self.comparisons])

    @property
    def ranked_alike(self) -> tuple[int, int]:
        """Pairs of schedulers that simulation and measurement order alike, and all pairs.

        Pairs measured within `TIE` of each other are left out: noise would decide them.
        """
        table = self.table
        pairs = list(
            combinations(zip(table["simulated_tok_s"], table["measured_tok_s"], strict=True), 2)
        )
        clear = [(a, b) for a, b in pairs if abs(a[1] / b[1] - 1) > TIE]
        return sum((a[0] > b[0]) == (a[1] > b[1]) for a, b in clear), len(clear)


def validate(
    config: ValidationConfig,
    out: Path,
    say: Say = lambda _: None,
    progress: Callable[[int, int], None] | None = None,
) -> Validation:
    """Run ``config`` on this machine and write report, tables and rows under ``out``.

    Raises InputError for a config that cannot run and ReplayError where the engine fails; the
    rows measured until then are kept under ``out/replays``.
    """
    pools = [config.pool(seed) for seed in config.calibration_seeds]
    pool = config.pool(config.seed)
    longest = max(int((p.prompt_tokens + p.output_tokens).max()) for p in (*pools, pool))
    backend = VllmBackend(
        model=config.model,
        engine=replace(config.engine, max_model_len=config.engine.max_model_len or longest),
        dummy_weights=config.dummy_weights,
        dtype=config.dtype,
        enforce_eager=config.enforce_eager,
        tensor_parallel=config.tensor_parallel,
        clock=config.clock,
        extra=config.extra,
    )
    say("starting vLLM")
    session = backend.open(pool)
    run = _Runs(config, backend, session, out / "replays", say, progress)

    start: CostModel = RooflineCostModel(backend.llm(), run.hardware, config.tensor_parallel)
    replays = []
    for k, other in enumerate(pools):
        for scheduler in config.calibration_schedulers:
            name = f"calibration-{k}-{scheduler}"
            replays.append(run.both(name, other, scheduler, start)[2])
    model, calibration = fit_replays(replays)
    model.write(out / "fitted.yaml")

    comparisons = []
    runs = [(name, False) for name in config.schedulers]
    runs += [(name, True) for name in config.run_time_schedulers]
    for scheduler, run_time in runs:
        label = f"{scheduler}-run-time" if run_time else scheduler
        simulated, steps, measured = run.both(label, pool, scheduler, model, run_time)
        work = measured.work()
        comparisons.append(
            Comparison(
                scheduler=label,
                simulated=simulated,
                simulated_steps=steps,
                measured=measured,
                steps_error=held_out_error(label, model, work, measured.step_s),
                predicted_s=np.asarray(model.step_cost(work).sequential_s),
            )
        )
    return Validation(config.name, model, calibration, comparisons)


class _Runs:
    """One engine that serves schedule after schedule."""

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

    def both(
        self,
        name: str,
        pool: Workload,
        scheduler: str,
        cost_model: CostModel,
        run_time: bool = False,
    ) -> tuple[SimulationResult, list[Row], ReplayResult]:
        """Simulate with the knobs that the engine reports, and replay what was simulated.

        A replay gets the order that the scheduler found, all of it queued at the start, so that
        is simulated too: a policy that holds requests back cannot be had from an order. At
        ``run_time`` the engine gets the policy itself.
        """
        planned, rows = self._simulate(pool, scheduler, cost_model)
        simulated = planned
        if not run_time:
            ordered = select(pool, planned.schedule.order)
            simulated, rows = self._simulate(ordered, "fcfs", cost_model)
        self._say(
            f"replaying {name}: {counted(len(pool), 'request')}, {counted(simulated.steps, 'step')}"
        )
        measured = replay(
            self._backend,
            pool,
            planned.schedule,
            self._folder / f"{name}.json",
            session=self._session,
            policies=[self._policy(pool, scheduler, cost_model)] if run_time else None,
            progress=self._progress,
        )
        self._say(f"  {measured.throughput_tok_s:,.0f} tokens/s in {measured.wall_s:.1f} s")
        return simulated, rows, measured

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
