"""A measured operator: its work, its seconds, and whether the seconds can be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.step_cost import attention_pairs

DIRTY_SPREAD = 0.15
"""A profile whose median spread of repetitions exceeds this is marked DIRTY in every source."""


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """A measured operator: its place on its curve, its work and its seconds."""

    curve: str
    """A name of ``hardware.CURVES``, or ``copy``."""
    at: Mapping[str, float]
    """Axis of the curve -> size."""
    flops: float
    bytes: float
    """Bytes of memory traffic; for an all-reduce, the bytes that each GPU sends."""
    seconds: float
    spread: float
    held_out: bool


def operator_time(
    llm: LLMSpec, kind: str, sizes: Sequence[int], seconds: float, spread: float, held_out: bool
) -> OperatorTime:
    """Return a measurement of `backends.profiling` with its FLOPs and bytes."""
    if kind == "copy":
        return OperatorTime("copy", {}, 0.0, 2.0 * sizes[0], seconds, spread, held_out)
    if kind == "elementwise":
        moved = float(sizes[0])
        return OperatorTime(kind, {"bytes": moved}, 0.0, moved, seconds, spread, held_out)
    if kind == "all_reduce":
        gpus, message = sizes
        at = {"gpus": float(gpus), "bytes": float(message)}
        sent = 2 * (gpus - 1) / gpus * message
        return OperatorTime(kind, at, 0.0, sent, seconds, spread, held_out)
    if kind == "gemm":
        rows, n, k = sizes
        moved = (n * k + rows * (n + k)) * llm.dtype_bytes
        at = {"n": float(n), "rows": float(rows)}
        return OperatorTime(kind, at, 2.0 * rows * n * k, moved, seconds, spread, held_out)
    requests, tokens = sizes
    kv_bytes = requests * tokens * llm.kv_bytes_per_token_layer
    if kind == "decode_attention":
        at = {"kv_heads": float(requests * llm.num_kv_heads), "context": float(tokens)}
        return OperatorTime(kind, at, 0.0, kv_bytes, seconds, spread, held_out)
    pairs = requests * attention_pairs(tokens)
    flops = pairs * llm.prefill_flops_per_pair / llm.num_layers
    at = {"heads": float(requests * llm.num_attention_heads), "keys": float(tokens)}
    return OperatorTime(kind, at, flops, kv_bytes, seconds, spread, held_out)


def marked(source: str, spread: float) -> str:
    """Return ``source``, marked DIRTY if repetitions differed too much to trust the medians."""
    if spread <= DIRTY_SPREAD:
        return source
    return f"{source}; DIRTY: repetitions differ by {spread:.0%}, measure again"
