"""Requests too long for the model or the KV cache: found before a run, never inside it."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.combine import take
from bssim.sim.workload.workload import Workload

_NAMED = 3
"""Requests an error names before it counts the rest."""


def oversize_requests(
    workload: Workload,
    *,
    max_model_len: int | None = None,
    kv_capacity_tokens: int | None = None,
) -> npt.NDArray[np.int64]:
    """Return the rows whose prompt + output tokens exceed either limit; None is no limit."""
    limits = [limit for limit in (max_model_len, kv_capacity_tokens) if limit is not None]
    if not limits:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(workload.prompt_tokens + workload.output_tokens > min(limits))


def fit_check(
    workload: Workload,
    *,
    max_model_len: int | None = None,
    kv_capacity_tokens: int | None = None,
    on_oversize: Literal["error", "drop"] = "error",
) -> Workload:
    """Return the workload if every request fits, or without those that do not.

    A request fits if prompt + output tokens are at most ``max_model_len`` and the KV cache's
    ``kv_capacity_tokens``. With ``error`` InputError names the first that do not; with ``drop``
    they are left out and counted in the notes, and InputError means that none is left.
    """
    rows = oversize_requests(
        workload, max_model_len=max_model_len, kv_capacity_tokens=kv_capacity_tokens
    )
    if not len(rows):
        return workload
    limits = [
        f"{label} {limit}"
        for label, limit in (
            ("max_model_len", max_model_len),
            ("KV capacity", kv_capacity_tokens),
        )
        if limit is not None
    ]
    what = f"{len(rows)} of {len(workload)} requests exceed {' or '.join(limits)} tokens"
    if on_oversize == "drop" and len(rows) < len(workload):
        keep = np.ones(len(workload), dtype=bool)
        keep[rows] = False
        return take(workload, np.flatnonzero(keep), notes=(f"{workload.name}: {what}: dropped",))
    named = ", ".join(
        f"{workload.request_id(i)} ({workload.prompt_tokens[i]} + {workload.output_tokens[i]})"
        for i in rows[:_NAMED].tolist()
    )
    more = ", ..." if len(rows) > _NAMED else ""
    raise InputError(
        f"workload {workload.name!r}: {what}: {named}{more}; expected all to fit, shorter caps, or "
        "on_oversize: drop"
    )
