"""The paper's performance model (section 4): the density of requests and pools.

It describes and mixes pools. The simulator does not use it; a CostModel prices steps. Token counts
are scalars, or arrays with one value per request.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bssim.cost_models.hardware import HardwareSpec, Lengths, held_shares, peak_flops
from bssim.cost_models.llm import LLMSpec, Shard

Value = TypeVar("Value", float, npt.NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class DensityConstants:
    """The model and GPU constants of the paper's density; default: Llama-3-8B on one A100-80GB."""

    params: float = 8.03e9
    """Parameters; for a mixture of experts, active parameters."""
    kv_bytes_per_token: float = 131072
    """KV cache bytes per token: Hkv L 4."""
    flops: float = 312e12
    """Peak FLOP/s of all GPUs used, in the GEMM formats of the weights."""
    bandwidth: float = 2.039e12
    """Peak memory bandwidth of all GPUs used, B/s; GPUs with copies of a KV head count once."""

    @classmethod
    def of(
        cls,
        llm: LLMSpec,
        hardware: HardwareSpec,
        tp: int = 1,
        lengths: tuple[Lengths, Lengths] | None = None,
    ) -> "DensityConstants":
        """Return the constants of ``llm`` on ``tp`` GPUs.

        ``lengths`` are the prompt and output tokens of a pool. With them, a layer with a window
        counts only the share of the context that it sees; without them, it counts in full.
        """
        kv_bytes: float = llm.kv_bytes_per_token
        if llm.windowed is not None and lengths is not None:
            shares = held_shares(llm, *lengths)
            groups = zip(shares, llm.attention_groups, strict=True)
            kv_bytes = sum(share * llm.group_kv_bytes(group) for share, group in groups)
        return cls(
            params=llm.num_active_params,
            kv_bytes_per_token=kv_bytes,
            flops=peak_flops(llm, hardware) * tp,
            bandwidth=hardware.bandwidth * Shard(llm, tp).kv_shards,
        )


def token_sums(
    prompt_tokens: npt.NDArray[np.int64], output_tokens: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the computed tokens and the read context tokens of each request.

    A request computes ``p + d`` tokens (without the quadratic term, as in the paper's derivations)
    and reads ``p d + d^2 / 2`` context tokens while it decodes. Its compute seconds and memory
    seconds are proportional to these.
    """
    p = prompt_tokens.astype(np.float64)
    d = output_tokens.astype(np.float64)
    return p + d, d * (p + d / 2)


def compute_seconds(computed: Value, constants: DensityConstants) -> Value:
    """Return the compute seconds: ``2 P / C`` per computed token."""
    seconds: Value = 2 * constants.params * computed / constants.flops
    return seconds


def memory_seconds(read: Value, constants: DensityConstants) -> Value:
    """Return the memory seconds: ``Hkv L 4 / BW`` per context token read."""
    seconds: Value = constants.kv_bytes_per_token * read / constants.bandwidth
    return seconds


def density_of_sums(
    sharing: float, computed: Value, read: Value, constants: DensityConstants
) -> Value:
    """Return ``(1 - s) sum Comp / sum Mem`` from the two sums of :func:`token_sums`.

    ``sharing`` s is the share of compute that a prefix cache saves. It saves no KV reads.
    """
    return (1 - sharing) * compute_seconds(computed, constants) / memory_seconds(read, constants)
