"""The constants of an engine version, fitted to the rows of one model.

A run's seconds are the time of the GPU plus its waits for the CPU: a constant per step and one per
request in a step. The waits are linear in both constants, so they are fitted by non-negative least
squares of relative errors over the rows of one model. Nothing about the GPU is changed.
"""

import numpy as np
import pandas as pd
from scipy.optimize import nnls

DIGITS = 2
"""Significant digits that are kept; more would change no error by 0.1 %."""


def fit_host_time(rows: pd.DataFrame) -> tuple[float, float]:
    """Return seconds per step and per request in a step that fit ``rows`` of `predictions` best.

    The constants with which the rows were simulated are taken out first.
    """
    measured = rows["measured_s"].to_numpy(dtype=float)
    steps = rows["steps"].to_numpy(dtype=float)
    requests = rows["host_steps"].to_numpy(dtype=float)
    host = rows["per_step_s"].to_numpy() * steps + rows["per_request_s"].to_numpy() * requests
    gpu = rows["predicted_s"].to_numpy(dtype=float) - host
    shares = np.column_stack([steps / measured, requests / measured])
    found, _ = nnls(shares, (measured - gpu) / measured)
    per_step, per_request = (float(f"{value:.{DIGITS}g}") for value in found)
    return per_step, per_request


def fitted_constants(table: pd.DataFrame) -> pd.DataFrame:
    """Return shipped and fitted constants of each engine version that has fitted rows.

    Index: version. Columns: rows, model, per_step_s, per_request_s (shipped), fit_per_step_s,
    fit_per_request_s.
    """
    lines = {}
    for version, rows in table[table["fitted"]].groupby("version", sort=False):
        per_step, per_request = fit_host_time(rows)
        lines[str(version)] = {
            "rows": len(rows),
            "model": rows["model"].iloc[0],
            "per_step_s": rows["per_step_s"].iloc[0],
            "per_request_s": rows["per_request_s"].iloc[0],
            "fit_per_step_s": per_step,
            "fit_per_request_s": per_request,
        }
    return pd.DataFrame.from_dict(lines, orient="index")
