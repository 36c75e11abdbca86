"""Measured operator tables: the Parquet files inside the `aiconfigurator-core` package.

The package (extra `[silicon]`, Apache-2.0) is found and its files are read; none of its code runs.
"""

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from bssim.cost_models.step_cost import FloatArray, attention_pairs
from bssim.errors import InputError

PACKAGE = "aiconfigurator_core"

SYSTEMS: dict[str, tuple[str, str]] = {
    "a100-40gb": ("a100_sxm", "0.14.0"),
    "a100-80gb": ("a100_sxm", "0.14.0"),
    "h100-sxm": ("h100_sxm", "0.24.0"),
    "h200": ("h200_sxm", "0.24.0"),
    "b200": ("b200_sxm", "0.24.0"),
    "l40s": ("l40s", "0.24.0"),
}
"""Our device -> (the package's system, the vLLM version whose kernels were measured)."""

BF16_BYTES = 2


@dataclass(frozen=True, eq=False)
class OperatorTables:
    """Rows measured on one device: bf16, vLLM's kernels, one GPU; times in seconds."""

    source: str
    gemm: pd.DataFrame
    """Columns rows, n, k, seconds."""
    prefill_attention: pd.DataFrame
    """Columns heads, kv_heads, head_dim, requests, tokens (a request, none cached), seconds."""
    decode_attention: pd.DataFrame
    """Columns heads, kv_heads, head_dim, requests, context (KV before the step), seconds."""
    all_reduce: pd.DataFrame
    """Columns gpus, bytes, seconds: vLLM's own all-reduce in a CUDA graph; may be empty."""


def has_tables(hardware_name: str) -> bool:
    """Return whether the package is installed and has tables of this device."""
    return hardware_name in SYSTEMS and find_spec(PACKAGE) is not None


def load_tables(hardware_name: str) -> OperatorTables:
    """Return the tables of a device.

    Raises InputError where the package is not installed or has none of this device.
    """
    if hardware_name not in SYSTEMS:
        raise InputError(
            "cost_model silicon",
            f"hardware {hardware_name!r}",
            f"one with measured tables: {', '.join(sorted(SYSTEMS))}",
        )
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise InputError.saying(
            "cost_model silicon",
            "package aiconfigurator-core is not installed",
            "it from `pip install 'bssim[silicon]'`",
        )
    system, release = SYSTEMS[hardware_name]
    root = Path(spec.origin).parent / "systems" / "data" / system
    package = version("aiconfigurator-core")
    return OperatorTables(
        source=f"measured: aiconfigurator-core {package}, {system}, vLLM {release}, bf16",
        gemm=_gemm(_read(root / "gemm" / "vllm" / release / "gemm_perf.parquet")),
        prefill_attention=_prefill(
            _read(root / "attention" / "vllm" / release / "context_attention_perf.parquet")
        ),
        decode_attention=_decode(
            _read(root / "attention" / "vllm" / release / "generation_attention_perf.parquet")
        ),
        all_reduce=_all_reduce(root / "comm" / "vllm" / release / "custom_allreduce_perf.parquet"),
    )


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError.saying(path, "not found", "this table in aiconfigurator-core >= 0.12")
    return pd.read_parquet(path)


def _seconds(frame: pd.DataFrame) -> "pd.Series[float]":
    return frame["latency"] / 1e3


def _median(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each size: the median of its repetitions."""
    sizes = [name for name in table.columns if name != "seconds"]
    return table.groupby(sizes)[["seconds"]].median().reset_index()


def _gemm(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame[frame["gemm_dtype"] == "bfloat16"]
    table = pd.DataFrame(
        {"rows": frame["m"], "n": frame["n"], "k": frame["k"], "seconds": _seconds(frame)}
    )
    return _median(table)


def _attention(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame[(frame["attn_dtype"] == "bfloat16") & (frame["kv_cache_dtype"] == "bfloat16")]
    if "window_size" in frame:
        frame = frame[frame["window_size"] == 0]
    return frame


def _prefill(frame: pd.DataFrame) -> pd.DataFrame:
    frame = _attention(frame)
    table = pd.DataFrame(
        {
            "heads": frame["num_heads"],
            "kv_heads": frame["num_key_value_heads"],
            "head_dim": frame["head_dim"],
            "requests": frame["batch_size"],
            "tokens": frame["isl"],
            "seconds": _seconds(frame),
        }
    )
    return _median(table)


def _decode(frame: pd.DataFrame) -> pd.DataFrame:
    frame = _attention(frame)
    table = pd.DataFrame(
        {
            "heads": frame["num_heads"],
            "kv_heads": frame["num_key_value_heads"],
            "head_dim": frame["head_dim"],
            "requests": frame["batch_size"],
            "context": frame["step"],
            "seconds": _seconds(frame),
        }
    )
    return _median(table)


def _all_reduce(path: Path) -> pd.DataFrame:
    columns = ["gpus", "bytes", "seconds"]
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    frame = pd.read_parquet(path)
    frame = frame[frame["backend"] == "vllm_graph"]
    table = pd.DataFrame(
        {
            "gpus": frame["num_gpus"],
            "bytes": frame["message_size"] * BF16_BYTES,  # the file counts elements
            "seconds": _seconds(frame),
        }
    )
    return _median(table)


# -- shares: what an efficiency curve is made of -----------------------------------------------


def gemm_share(table: pd.DataFrame, flops: float, bandwidth: float) -> FloatArray:
    """Return each row's share of its roofline max(flops / C, bytes / BW), at most 1."""
    rows, n, k = (table[name].to_numpy(np.float64) for name in ("rows", "n", "k"))
    compute = 2 * rows * n * k / flops
    memory = BF16_BYTES * (n * k + rows * (n + k)) / bandwidth
    return _share(np.maximum(compute, memory), table)


def prefill_share(table: pd.DataFrame, flops: float) -> FloatArray:
    """Return each row's share of the peak for its causal (query, key) pairs, at most 1."""
    heads, dim, requests, tokens = (
        table[name].to_numpy(np.float64) for name in ("heads", "head_dim", "requests", "tokens")
    )
    pairs = requests * attention_pairs(tokens)
    return _share(4 * pairs * heads * dim / flops, table)


def decode_share(table: pd.DataFrame, bandwidth: float) -> FloatArray:
    """Return each row's share of the bandwidth for the KV it reads, at most 1."""
    kv_heads, dim, requests, context = (
        table[name].to_numpy(np.float64) for name in ("kv_heads", "head_dim", "requests", "context")
    )
    read = requests * context * 2 * kv_heads * dim * BF16_BYTES
    return _share(read / bandwidth, table)


def all_reduce_share(table: pd.DataFrame, link_bandwidth: float) -> FloatArray:
    """Return each row's share of the link for a ring's 2 (g - 1) / g of the message, at most 1."""
    gpus = table["gpus"].to_numpy(np.float64)
    moved = 2 * (gpus - 1) / gpus * table["bytes"].to_numpy(np.float64)
    return _share(moved / link_bandwidth, table)


def _share(ideal_s: npt.NDArray[np.float64], table: pd.DataFrame) -> FloatArray:
    return np.asarray(np.clip(ideal_s / table["seconds"].to_numpy(np.float64), 1e-9, 1.0))
