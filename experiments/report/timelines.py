"""The stored timelines of a sweep as compact columns for the charts of the report."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bssim.experiments.plots import scheduler_order
from bssim.experiments.sweeps import Results, replica_kinds, shown_replicas

MOST_PANELS = 80
"""More panels would make the file too large to share."""
DIGITS = 4
"""Significant digits of a value, more than a chart can show."""
TIME_DIGITS = 7


def timeline_groups(results: Results, ok: pd.DataFrame) -> tuple[list[dict[str, Any]], str]:
    """Return a group of panels for each setting and workload, and a note on what is left out.

    ``ok`` are finished rows with a column ``setting``. Each group has a ``label`` and ``panels``:
    one per scheduler and kind of replica, with a column for each value that is charted. The first
    seed, and the first replica of a kind that had work, are shown.
    """
    kept = results.timelines(ok)
    inputs = results.inputs(ok)
    first = ok[ok["seed"] == ok["seed"].min()]
    several = ok["setting"].nunique() > 1
    groups: list[dict[str, Any]] = []
    panels = left_out = 0
    for (setting, workload), rows in first.groupby(["setting", "workload"], sort=False):
        hashes = dict(zip(rows["scheduler"], rows["config_hash"], strict=True))
        mine = [
            panel
            for name in scheduler_order(hashes)
            if hashes[name] in kept and hashes[name] in inputs
            for panel in _panels(name, kept[hashes[name]], inputs[hashes[name]])
        ]
        if panels + len(mine) > MOST_PANELS:
            left_out += 1
        elif mine:
            panels += len(mine)
            label = f"{workload}: {setting}" if several else str(workload)
            groups.append({"label": label, "panels": mine})
    if left_out:
        note = f"The steps of {left_out} more settings are left out to keep this file small."
    else:
        note = "" if groups else "The sweep kept no timelines: set `timeline: true` in its file."
    return groups, note


def _panels(
    scheduler: str, timeline: pd.DataFrame, inputs: Mapping[str, Any]
) -> list[dict[str, Any]]:
    panels = []
    for _, label, steps in shown_replicas(scheduler, timeline, replica_kinds(inputs)):
        last = steps.iloc[-1]
        panels.append(
            {
                "label": label,
                "end": float(last["start_s"] + last["step_s"] * last["steps"]),
                "t": _short(steps["start_s"], TIME_DIGITS),
                "compute": _short(steps["compute_s"] * 1e3),
                "memory": _short(steps["memory_s"] * 1e3),
                "step": _short(steps["step_s"] * 1e3),
                "prompt": _short(steps["prefill_tokens"]),
                "decode": _short(steps["decode_requests"]),
                "kv": _short(steps["kv_tokens"]),
                "running": _short(steps["running"]),
            }
        )
    return panels


def _short(values: "pd.Series[float]", digits: int = DIGITS) -> list[float]:
    """Return values rounded to some significant digits; whole numbers without a fraction."""
    rounded = (float(f"{value:.{digits}g}") for value in values.tolist())
    return [int(value) if value.is_integer() else value for value in rounded]
