"""Compute over memory seconds of every step over time, which `ratio` keeps level."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bssim.experiments.plots import blend_figure, conditions_of
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import frame_table
from bssim.experiments.sweeps import Results

SWEEP = "ratio/blend.yaml"
NEAR = 0.2
"""Relative distance from the pool's ratio that still counts as at it."""


class Blend:
    """How much of its time a scheduler spends near the pool's ratio."""

    name = "ratio_blend"
    title = "The ratio of compute to memory over time"

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return the sweep with timelines."""
        return (SWEEP,)

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """Return the share of time near the ratio, and one figure per workload."""
        runs = results[SWEEP].read_runs()
        runs = runs[runs["status"] == "ok"]
        timelines = results[SWEEP].timelines(runs)
        rows, figures, captions = {}, {}, {}
        for workload in runs["workload"].unique().tolist():
            group = runs[runs["workload"] == workload]
            kept = {
                scheduler: timelines[key]
                for scheduler, key in zip(group["scheduler"], group["config_hash"], strict=True)
            }
            # The order that computes least is closest to the least possible work.
            target = float((group["compute_s"] / group["memory_s"]).min())
            for scheduler, timeline in kept.items():
                rows[workload, scheduler] = time_near(timeline, target)
            stem = f"blend-{workload}"
            near = ", ".join(f"{name} for {rows[workload, name]:.0%}" for name in kept)
            message = (
                f"{workload}: steps are within {NEAR:.0%} of the pool's ratio: {near} of the time"
            )
            figures[stem] = blend_figure(kept, target, message, conditions_of(group))
            captions[stem] = (
                f"{workload}: compute over memory seconds of the steps over time; black: the "
                "whole pool. Away from the black line, one resource waits."
            )
        shares = pd.Series(rows).unstack()[list(dict.fromkeys(runs["scheduler"]))]
        claims = [
            Claim(
                id=f"ratio_blend.{workload}.{scheduler}",
                what=f"{scheduler} on {workload}: share of time within {NEAR:.0%} of the ratio",
                paper=None,
                ours=float(value),
            )
            for (workload, scheduler), value in rows.items()
        ]
        text = (
            f"Share of time in steps whose ratio of compute to memory is within {NEAR:.0%} of "
            "that of the pool (`--cost-model paper`, frontier, `survival`). On the frontier, "
            "steps above a ratio of 3/4 add up without loss. A pool above 3/4 therefore needs "
            "no level line: `ratio` then holds at least 3/4 and keeps the rest for the drain. "
            "[Figure 10](reproduction.md) shows what uneven steps cost:\n\n"
            + frame_table(shares, lambda value: f"{value:.2f}", corner="")
        )
        return Chapter(claims, text, figures, captions)


def time_near(timeline: pd.DataFrame, target: float) -> float:
    """Return the share of a run's seconds in slices whose compute / memory is near ``target``."""
    seconds = (timeline["step_s"] * timeline["steps"]).to_numpy()
    with np.errstate(divide="ignore"):
        ratio = (timeline["compute_s"] / timeline["memory_s"]).to_numpy()
    near = np.abs(ratio / target - 1) <= NEAR
    return float(seconds[near].sum() / seconds.sum())


BLEND = Blend()
