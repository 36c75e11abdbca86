"""Density of a pool (section 4 of the paper): compute seconds over memory seconds."""

import numpy as np
import numpy.typing as npt

from bssim.cost_models.density import (
    DensityConstants,
    compute_seconds,
    density_of_sums,
    memory_seconds,
    token_sums,
)
from bssim.sim.workload.workload import Workload


def pool_density(workload: Workload, constants: DensityConstants | None = None) -> float:
    """Return the density of a pool, where each shared prefix is computed once."""
    unit = constants or DensityConstants()
    computed, read = token_sums(workload.prompt_tokens, workload.output_tokens)
    compute_s, memory_s = compute_seconds(computed, unit), memory_seconds(read, unit)
    return float((1 - workload.sharing_max) * compute_s.sum() / memory_s.sum())


def request_density(
    workload: Workload, constants: DensityConstants | None = None
) -> npt.NDArray[np.float64]:
    """Return ``Comp(r) / Mem(r)`` for each request, without sharing, shape (n,)."""
    computed, read = token_sums(workload.prompt_tokens, workload.output_tokens)
    unit = density_of_sums(0.0, 1.0, 1.0, constants or DensityConstants())
    return unit * computed / read
