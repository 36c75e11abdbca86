"""A run's steps as a table: every step for `--timeline`, or averages over equal slices of time."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from bssim.experiments.sweeps.axes import SPLIT
from bssim.sim.cluster import Disaggregation
from bssim.sim.result import SimulationResult, Timeline

POINTS = 600
"""Slices of a downsampled timeline, more than the pixels of a figure."""
ONE_REPLICA: Mapping[str, range] = {"": range(1)}
"""The kinds of replica of a run with one replica, which needs no name."""


class Shown(NamedTuple):
    """The steps of the replica that a figure shows for one scheduler."""

    kind: str
    label: str
    """The scheduler and, with several replicas, which of them."""
    steps: pd.DataFrame


def replica_kinds(inputs: Mapping[str, Any]) -> Mapping[str, range]:
    """Return kind of replica -> numbers of the replicas in the timeline of a cell's inputs."""
    if inputs.get(SPLIT):
        split = Disaggregation.parse(inputs[SPLIT])
        return {
            "prefill replica": range(split.prefill),
            "decode replica": range(split.prefill, split.replicas),
        }
    return {"replica": range(inputs["dp"])} if inputs["dp"] > 1 else ONE_REPLICA


def shown_replicas(
    scheduler: str, timeline: pd.DataFrame, kinds: Mapping[str, range]
) -> Iterator[Shown]:
    """Yield the first replica of each kind that had work."""
    for kind, replicas in kinds.items():
        busy = [i for i in replicas if (timeline["replica"] == i).any()]
        if busy:
            place = f"{busy[0] - replicas.start + 1} of {len(replicas)}"
            label = f"{scheduler}, {kind} {place}" if kind else scheduler
            yield Shown(kind, label, timeline[timeline["replica"] == busy[0]])


def per_step(result: SimulationResult) -> pd.DataFrame:
    """Return one row per step and replica; units are those of StepWork and StepCost."""
    return pd.concat(
        [_steps(t).assign(replica=i) for i, t in enumerate(result.timelines)], ignore_index=True
    )


def downsample(result: SimulationResult, points: int = POINTS) -> pd.DataFrame:
    """Return at most ``points`` rows per replica: means over the steps that start in a slice.

    Slices are equally long in simulated time. ``steps`` counts the steps of a slice, so
    ``steps * column`` summed over slices is the run's total.
    """
    parts = []
    for replica, timeline in enumerate(result.timelines):
        steps = _steps(timeline)
        if steps.empty:  # a replica without requests
            continue
        end = float(steps["start_s"].iloc[-1] + steps["step_s"].iloc[-1])
        place = steps["start_s"].to_numpy() / end * points
        grouped = steps.groupby(np.minimum(place.astype(np.int64), points - 1))
        part = grouped.mean()
        part["start_s"] = grouped["start_s"].first()
        parts.append(part.assign(steps=grouped.size(), replica=replica))
    return pd.concat(parts, ignore_index=True)


def _steps(timeline: Timeline) -> pd.DataFrame:
    step_s = np.asarray(timeline.step_s)
    start_s = timeline.start_s if timeline.start_s is not None else np.cumsum(step_s) - step_s
    columns: dict[str, npt.NDArray[np.float64 | np.int64]] = {
        "start_s": start_s,
        "step_s": step_s,
    }
    for part in (timeline.cost, timeline.work):
        for field in fields(part):
            values = np.asarray(getattr(part, field.name), dtype=np.float64)
            columns[field.name] = np.broadcast_to(values, step_s.shape)
    columns["kv_tokens"] = timeline.kv_tokens
    columns["running"] = timeline.running
    return pd.DataFrame(columns)
