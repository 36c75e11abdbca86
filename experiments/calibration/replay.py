"""Fit a cost model to the measured steps of replays, and report its error on held-out steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from bssim.backends import ReplayResult
from bssim.cost_models.fitted import FittedCostModel, concatenate, fit
from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import CostModel, StepWork
from bssim.errors import InputError

FOLDS = 5
"""The parts of a single replay; each part is predicted from the others."""


@dataclass(frozen=True, slots=True)
class HeldOutError:
    """The errors on held-out steps; an error is predicted / true - 1."""

    part: str
    steps: int
    total: float
    """Error of the summed seconds, which is the error of throughput."""
    median: float
    """Median absolute error of steps."""
    p90: float
    """90th percentile of the absolute errors of steps."""

    def as_text(self) -> str:
        """Return the errors as one line."""
        return (
            f"{self.part}: {self.steps} steps, total {self.total:+.1%}, "
            f"steps median {self.median:.1%}, p90 {self.p90:.1%}"
        )


def predicted_errors(
    llm: LLMSpec, hardware: HardwareSpec, replays: Sequence[ReplayResult]
) -> list[HeldOutError]:
    """Return the errors on replays of a prediction from the operators of ``hardware`` only.

    Nothing is fitted. The prediction has no host time of the engine, so errors tend to be negative.
    Raises InputError for a replay with weights of another type.
    """
    found = []
    for replay in replays:
        dtype = replay.environment.get("dtype")
        if dtype != llm.precision.dtype:
            raise InputError(
                f"calibrate: replay of {replay.workload}",
                f"dtype {dtype!r}",
                f"{llm.precision.dtype} as --dtype",
            )
        tp = int(replay.environment.get("tensor_parallel", 1))
        model = RooflineCostModel(llm, hardware, tp)
        part = f"{replay.workload}, {replay.scheduler}"
        found.append(held_out_error(part, model, replay.work(), replay.step_s))
    return found


def fit_replays(replays: Sequence[ReplayResult]) -> tuple[FittedCostModel, list[HeldOutError]]:
    """Return the model that is fitted to all steps, and its cross-validated errors.

    Each replay is predicted from the others. A single replay is cut into parts of consecutive
    steps. Raises InputError for replays of different machines or engines, and for too few steps.
    """
    if not replays:
        raise InputError("calibrate", "no replays", "at least one")
    _check_same_machine(replays)
    if len(replays) > 1:
        works = [replay.work() for replay in replays]
        seconds = [replay.step_s for replay in replays]
        names = [f"{replay.workload}, {replay.scheduler}" for replay in replays]
    else:
        works, seconds, names = _cut(replays[0])
    origin = _provenance(replays)
    held_out = []
    for k, name in enumerate(names):
        rest = [i for i in range(len(names)) if i != k]
        model = fit(
            concatenate([works[i] for i in rest]),
            np.concatenate([seconds[i] for i in rest]),
            origin,
        )
        held_out.append(held_out_error(name, model, works[k], seconds[k]))
    return fit(concatenate(works), np.concatenate(seconds), origin), held_out


def held_out_error(
    part: str, model: CostModel, work: StepWork, seconds: npt.NDArray[np.float64]
) -> HeldOutError:
    """Return the errors of ``model`` on steps that it was not fitted to."""
    predicted = np.asarray(model.step_cost(work).sequential_s)
    steps = np.abs(predicted / seconds - 1)
    return HeldOutError(
        part=part,
        steps=len(seconds),
        total=float(predicted.sum() / seconds.sum() - 1),
        median=float(np.median(steps)),
        p90=float(np.quantile(steps, 0.9)),
    )


def _cut(
    replay: ReplayResult,
) -> tuple[list[StepWork], list[npt.NDArray[np.float64]], list[str]]:
    work, seconds = replay.work(), replay.step_s
    edges = np.linspace(0, len(seconds), FOLDS + 1).astype(int).tolist()
    parts = [slice(a, b) for a, b in pairwise(edges)]
    whole = concatenate([work])  # padding becomes a column too, so that it can be cut
    names = [f"{replay.workload}, {replay.scheduler}, part {k + 1}" for k in range(FOLDS)]
    return [whole[part] for part in parts], [seconds[part] for part in parts], names


def _check_same_machine(replays: Sequence[ReplayResult]) -> None:
    names = (
        "engine_version",
        "device",
        "driver",
        "dtype",
        "tensor_parallel",
        "enforce_eager",
        "clock",
    )
    first = replays[0]
    for replay in replays[1:]:
        for name in names:
            a, b = first.environment.get(name), replay.environment.get(name)
            if a != b:
                raise InputError(
                    f"calibrate: {name}",
                    f"{a!r} and {b!r}",
                    "replays of one machine and one engine",
                )
        if first.engine.async_scheduling != replay.engine.async_scheduling:
            raise InputError(
                "calibrate", "replays with and without async_scheduling", "all with or all without"
            )


def _provenance(replays: Sequence[ReplayResult]) -> str:
    where = replays[0].environment
    steps = sum(len(replay.steps) for replay in replays)
    mode = "async" if replays[0].engine.async_scheduling else "sync"
    return (
        f"measured: {steps} steps of {len(replays)} replays, {where.get('engine')} "
        f"{where.get('engine_version')} ({mode}) on {where.get('device')}, {where.get('date')}"
    )
