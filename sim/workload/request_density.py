"""Compute density of a pool (the paper's section 4): how compute-bound it is under any schedule."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bssim.sim.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class DensityConstants:
    """What the paper's density needs of model and GPU; Llama-3-8B on one A100-80GB by default."""

    params: float = 8.03e9
    """Parameters (active ones, for a mixture of experts)."""
    layers: int = 32
    kv_heads_dim: int = 1024
    """KV heads x head dimension."""
    flops: float = 312e12
    """Peak FP16 FLOP/s of all GPUs used."""
    bandwidth: float = 2.039e12
    """Peak memory bandwidth of all GPUs used, B/s."""


def token_sums(
    prompt_tokens: npt.NDArray[np.int64], output_tokens: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return per request what its compute and its KV reads are proportional to.

    ``p + d`` tokens computed (the quadratic term is dropped, as in the paper's derivations) and
    ``p d + d^2 / 2`` context tokens read while decoding.
    """
    p = prompt_tokens.astype(np.float64)
    d = output_tokens.astype(np.float64)
    return p + d, d * (p + d / 2)


Scalars = TypeVar("Scalars", float, npt.NDArray[np.float64])


def density_of_sums(
    sharing: float, computed: Scalars, read: Scalars, constants: DensityConstants
) -> Scalars:
    """Return ``(1 - s) sum Comp / sum Mem`` from the two sums of :func:`token_sums`."""
    compute_s: Scalars = 2 * constants.params * computed / constants.flops
    # K and V, two bytes each, of every layer.
    memory_s: Scalars = 4 * constants.layers * constants.kv_heads_dim * read / constants.bandwidth
    return (1 - sharing) * compute_s / memory_s


def pool_density(workload: Workload, constants: DensityConstants | None = None) -> float:
    """Return the density of a pool with its maximal sharing inside (paper.md section 1)."""
    computed, read = token_sums(workload.prompt_tokens, workload.output_tokens)
    return density_of_sums(
        workload.sharing_max,
        float(computed.sum()),
        float(read.sum()),
        constants or DensityConstants(),
    )


def request_density(
    workload: Workload, constants: DensityConstants | None = None
) -> npt.NDArray[np.float64]:
    """Return ``Comp(r) / Mem(r)`` of every request, without sharing, shape (n,)."""
    computed, read = token_sums(workload.prompt_tokens, workload.output_tokens)
    unit = density_of_sums(0.0, 1.0, 1.0, constants or DensityConstants())
    return unit * computed / read
