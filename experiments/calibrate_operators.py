"""`bssim calibrate --operators`: measure this machine's operators, write a hardware profile."""

import platform
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from bssim.backends.torch_profile import SizePlan, device_name, measure
from bssim.cost_models.llm_config import load_llm
from bssim.cost_models.profile import Profile, build_profile, operator_time
from bssim.errors import InputError

DTYPE_BYTES = {"float32": 4, "bfloat16": 2}


def calibrate_operators(
    model: str,
    out: Path,
    *,
    device: str = "cpu",
    base: str = "cpu",
    dtype: str = "bfloat16",
    plan: SizePlan | None = None,
    repeats: int = 7,
    max_bytes: float = 2**30,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Measure the operators of ``model`` on ``device`` and write the profile ``out``.

    ``base`` is the shipped spec that gives memory and links. The profile is used by
    ``--hardware OUT``. Raises InputError where torch or the device is missing.
    """
    if dtype not in DTYPE_BYTES:
        raise InputError(f"calibrate: --dtype: found {dtype!r}; expected bfloat16 or float32")
    size = DTYPE_BYTES[dtype]
    llm = replace(load_llm(model), dtype_bytes=size, kv_dtype_bytes=size)
    rng = np.random.default_rng(seed)
    found = measure(
        llm,
        device=device,
        plan=plan,
        repeats=repeats,
        max_bytes=max_bytes,
        rng=rng,
        progress=progress,
    )
    source = (
        f"measured: torch on {device_name(device)}, {dtype}, shapes of {llm.name}, "
        f"{platform.system()}, {date.today().isoformat()}"
    )
    times = [
        operator_time(
            llm, row.case.kind, row.case.sizes, row.seconds, row.spread, row.case.held_out
        )
        for row in found
    ]
    profile = build_profile(times, name=out.stem, base=base, source=source)
    profile.write(out)
    return profile
