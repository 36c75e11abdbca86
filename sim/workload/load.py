"""The front door: a workload by name or by file."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from bssim.errors import InputError, unknown_name
from bssim.sim.workload.request_density import DensityConstants
from bssim.sim.workload.sources import SOURCE_NAMES, Source, builtin_source
from bssim.sim.workload.synthesis import DEFAULT_NUM_REQUESTS, TRACES, MixSpec, mix
from bssim.sim.workload.workload import Workload

WORKLOAD_NAMES = (*TRACES, *SOURCE_NAMES)


def load_workload(
    name_or_path: str | Path,
    *,
    num_requests: int | None = None,
    seed: int = 0,
) -> Workload:
    """Return the workload of a name: ``trace1`` .. ``trace4`` or a built-in source.

    Both hold ``num_requests`` requests, 400,000 unless given. The same arguments give the same
    arrays. Raises InputError with the nearest name for an unknown one.
    """
    if num_requests is not None and num_requests < 1:
        raise InputError(f"num_requests: found {num_requests}; expected at least 1")
    rng = np.random.default_rng(seed)
    name = str(name_or_path)
    if name in TRACES:
        return load_mix(TRACES[name], num_requests=num_requests, seed=seed, name=name)
    if name in SOURCE_NAMES:
        source = builtin_source(name)
        drawn = source.draw(num_requests or DEFAULT_NUM_REQUESTS, rng)
        return replace(drawn, notes=source.report(drawn))
    raise unknown_name("workload", name, WORKLOAD_NAMES)


def load_mix(
    spec: MixSpec,
    *,
    num_requests: int | None = None,
    seed: int = 0,
    name: str = "mix",
    constants: DensityConstants | None = None,
) -> Workload:
    """Return a mix to a target; see :func:`bssim.sim.workload.synthesis.mix`."""
    return mix(
        spec,
        (
            open_source(spec.compute_source),
            open_source(spec.memory_source),
            open_source(spec.sharing_source),
        ),
        num_requests=num_requests or DEFAULT_NUM_REQUESTS,
        rng=np.random.default_rng(seed),
        name=name,
        constants=constants,
    )


def open_source(name_or_path: str) -> Source:
    """Return the source of a name."""
    return builtin_source(name_or_path)
