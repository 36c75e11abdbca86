"""Simulates and replays the same schedules, and reports the differences.

1. Calibration: replay separate pools and fit a cost model to them.
2. Validation: every scheduler plans the pool with that cost model; replay its schedule.

Stock vLLM runs its operators one after another, so this validates the sequential engine, the
scheduling and the order of requests. It cannot confirm gains from overlapping operators.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bssim.backends import ReplayResult, Row
from bssim.backends.vllm import VllmBackend
from bssim.cost_models.fitted import FittedCostModel
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import CostModel
from bssim.experiments.calibration import HeldOutError, fit_replays, held_out_error
from bssim.experiments.validation.comparison import Comparison
from bssim.experiments.validation.config import ValidationConfig
from bssim.experiments.validation.runs import Runs, Say
from bssim.sim.result import SimulationResult
from bssim.sim.workload import Workload


@dataclass(frozen=True, eq=False)
class Validation:
    """The results of one validation."""

    name: str
    model: FittedCostModel
    calibration: list[HeldOutError]
    comparisons: list[Comparison]
    pools: dict[str, list[Comparison]] = field(default_factory=dict)
    """Fixed orders of the config's ``pools``, by pool."""

    @property
    def table(self) -> pd.DataFrame:
        """One row per scheduler, in the order of the config; speed-ups are over the first."""
        return pd.DataFrame([c.row(self.comparisons[0]) for c in self.comparisons])


def validate(
    config: ValidationConfig,
    out: Path,
    say: Say = lambda _: None,
    progress: Callable[[int, int], None] | None = None,
) -> Validation:
    """Run ``config`` on this machine and write report, tables and rows under ``out``.

    Raises InputError for a config that cannot run, and ReplayError if the engine fails; the rows
    measured before are kept under ``out/replays``.
    """
    pools = [config.pool(seed) for seed in config.calibration_seeds]
    pool = config.pool(config.seed)
    ordered = [source.pool(config.seed) for source in config.pools]
    everything = (*pools, pool, *ordered)
    longest = max(int((p.prompt_tokens + p.output_tokens).max()) for p in everything)
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
    run = Runs(config, backend, session, out / "replays", say, progress)

    start: CostModel = RooflineCostModel(backend.llm(), run.hardware, config.tensor_parallel)
    replays = [
        measured
        for other in pools
        for *_, measured in run.taking_turns(
            other, config.calibration_schedulers, start, config.repeats
        ).values()
    ]
    model, calibration = fit_replays(replays)
    model.write(out / "fitted.yaml")

    def compare(other: Workload, schedulers: Sequence[str]) -> list[Comparison]:
        found = run.taking_turns(other, schedulers, model, config.repeats)
        return [_comparison(name, model, *parts) for name, parts in found.items()]

    comparisons = compare(pool, config.schedulers)
    for scheduler in config.run_time_schedulers:
        label = f"{scheduler}-run-time"
        comparisons.append(_comparison(label, model, *run.run_time(label, pool, scheduler, model)))
    by_pool = {other.name: compare(other, config.pool_schedulers) for other in ordered}
    return Validation(config.name, model, calibration, comparisons, by_pool)


def _comparison(
    label: str,
    model: FittedCostModel,
    simulated: SimulationResult,
    steps: list[Row],
    measured: ReplayResult,
) -> Comparison:
    work = measured.work()
    return Comparison(
        scheduler=label,
        simulated=simulated,
        simulated_steps=steps,
        measured=measured,
        steps_error=held_out_error(label, model, work, measured.step_s),
        predicted_s=np.asarray(model.step_cost(work).sequential_s),
    )
