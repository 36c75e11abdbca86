"""Measured rows made into efficiency curves: the share of its roofline that each row reached.

`measured_hardware` is the entrance: it takes tables that are loaded and returns a hardware spec.
The shares are also what `cost_models/fitting/` fits its smaller curves to.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from bssim.cost_models.hardware import EfficiencyCurve, HardwareSpec
from bssim.cost_models.llm import LINEARS, LLMSpec, Shard
from bssim.cost_models.operators import expert_loads
from bssim.cost_models.silicon.tables import (
    BF16_BYTES,
    MLA_SIZES,
    PEAK_FORMATS,
    REDUCE_TABLES,
    OperatorTables,
    Sizes,
    gemm_sizes,
)
from bssim.cost_models.step_cost import FloatArray, attention_pairs
from bssim.errors import InputError


def measured_hardware(
    measured: OperatorTables, part: Shard, hardware: HardwareSpec
) -> HardwareSpec:
    """Return ``hardware`` with its curves replaced by the measured rows that the model needs."""
    llm = part.llm
    formats = {f"gemm_{llm.precision.gemm_format(kind)}" for kind in LINEARS}
    peaks = {name: hardware.peak(PEAK_FORMATS[name]) for name in formats if name in measured.others}
    fp8_peak = hardware.peak("fp8") if _fp8_prefill(measured, llm) else None
    attention = _mla_curves if llm.is_mla else _attention_curves
    curves: dict[str, EfficiencyCurve] = {
        "gemm": _gemm_grid(measured.gemm, hardware, hardware.flops, measured.source),
        **attention(measured, part, hardware),
    }
    all_reduce = replace(
        hardware.all_reduce, source=f"not in the tables; {hardware.all_reduce.source}"
    )
    if len(measured.all_reduce):
        all_reduce = curves["all_reduce"] = reduce_curve(
            measured.all_reduce, hardware, str(measured.all_reduce.attrs["source"])
        )
    sources = {**hardware.sources, **{name: curve.source for name, curve in curves.items()}}
    if "all_reduce" not in curves:
        sources["all_reduce"] = all_reduce.source
    return replace(
        hardware,
        gemm=curves["gemm"],
        prefill_attention=curves["prefill_attention"],
        decode_attention=curves["decode_attention"],
        all_reduce=all_reduce,
        optional={
            **hardware.optional,
            **_optional(measured, part, hardware, peaks, fp8_peak),
        },
        link_latency_s=0.0 if "all_reduce" in curves else hardware.link_latency_s,
        fixed_s={**hardware.fixed_s, **dict.fromkeys(curves, 0.0)},
        sources=sources,
    )


def _fp8_prefill(measured: OperatorTables, llm: LLMSpec) -> bool:
    """Return whether the model attends to prompts in fp8 and the tables have such rows."""
    small = llm.kv_dtype_bytes < llm.dtype_bytes and not llm.is_mla
    return small and "prefill_attention_fp8" in measured.others


def _attention_curves(
    measured: OperatorTables, part: Shard, hardware: HardwareSpec
) -> dict[str, EfficiencyCurve]:
    """Return the curves of a model whose K and V are cached as they are."""
    llm, heads, kv_heads = part.llm, part.heads, part.kv_heads
    prefill = _rows_for(measured.prefill_attention, llm, heads, kv_heads)
    decode = _rows_for(measured.decode_attention, llm, heads, kv_heads)
    share = prefill_share(prefill, hardware.flops)
    return {
        "prefill_attention": _prefill_grid(prefill, heads, share, measured.source),
        "decode_attention": _decode_grid(decode, kv_heads, hardware, measured.source),
    }


def _mla_curves(
    measured: OperatorTables, part: Shard, hardware: HardwareSpec
) -> dict[str, EfficiencyCurve]:
    """Return the curves of a model with MLA.

    Prompts expand the latent into K and V; decodes read it. Raises InputError for sizes that were
    not measured.
    """
    llm = part.llm
    sizes = {name: getattr(llm, name) for name in MLA_SIZES}
    if sizes != MLA_SIZES:
        raise InputError(
            "cost_model silicon", f"{llm.name} with {sizes}", f"{MLA_SIZES}; use roofline"
        )
    prefill = _mla_rows(measured.mla["prefill"], part)
    pairs = prefill["requests"] * attention_pairs(prefill["tokens"].to_numpy(np.float64))
    widths = llm.qk_nope_head_dim + llm.qk_rope_head_dim + llm.v_head_dim
    flops = (pairs * prefill["heads"] * 2 * widths).to_numpy(np.float64)
    share = _share(flops / hardware.flops, prefill)
    source = str(measured.mla["prefill"].attrs["source"])
    return {
        "prefill_attention": _prefill_grid(prefill, part.heads, share, source),
        "decode_attention": _mla_decode(measured.mla["decode"], part, hardware, BF16_BYTES),
    }


def _mla_decode(
    table: pd.DataFrame, part: Shard, hardware: HardwareSpec, kv_bytes: int
) -> EfficiencyCurve:
    rows = _mla_rows(table, part)
    latent = (part.llm.kv_lora_rank + part.llm.qk_rope_head_dim) * kv_bytes
    read = (rows["requests"] * rows["context"]).to_numpy(np.float64) * latent
    axes = {"kv_heads": rows["requests"], "context": rows["context"]}
    share = _share(read / hardware.bandwidth, rows)
    return _grid(rows, axes, share, str(table.attrs["source"]))


def _mla_rows(table: pd.DataFrame, part: Shard) -> pd.DataFrame:
    """Return the rows of the measured number of heads that is nearest to those on one GPU."""
    counts = table["heads"].unique()
    nearest = counts[np.abs(np.log(counts / part.heads)).argmin()]
    return pd.DataFrame(table[table["heads"] == nearest])


def _optional(
    measured: OperatorTables,
    part: Shard,
    hardware: HardwareSpec,
    peaks: Mapping[str, float],
    fp8_peak: float | None,
) -> dict[str, EfficiencyCurve]:
    """Return the optional curves that the model needs, through their measured rows.

    ``peaks`` are the FLOP/s of its GEMM curves that have rows; ``fp8_peak`` is that of attention to
    prompts in fp8, if the model needs it.
    Elementwise kernels keep the fitted curve, because their rows scatter at equal sizes.
    """
    llm, heads, kv_heads = part.llm, part.heads, part.kv_heads
    found = {}
    for name, peak in peaks.items():
        table = measured.others[name]
        source = str(table.attrs["source"])
        found[name] = _gemm_grid(table, hardware, peak, source, gemm_sizes(name, source))
    small = llm.kv_dtype_bytes < llm.dtype_bytes
    if small and llm.is_mla:
        table = measured.mla["decode_fp8"]
        found["decode_attention_fp8"] = _mla_decode(table, part, hardware, 1)
    elif small and "decode_attention_fp8" in measured.others:
        table = measured.others["decode_attention_fp8"]
        rows = _rows_for(table, llm, heads, kv_heads)
        found["decode_attention_fp8"] = _decode_grid(
            rows, kv_heads, hardware, str(table.attrs["source"]), kv_bytes=1
        )
    if fp8_peak is not None:
        table = measured.others["prefill_attention_fp8"]
        rows = _rows_for(table, llm, heads, kv_heads)
        share = prefill_share(rows, fp8_peak)
        found["prefill_attention_fp8"] = _prefill_grid(
            rows, heads, share, str(table.attrs["source"])
        )
    for name in REDUCE_TABLES:
        if name in measured.others:
            table = measured.others[name]
            found[name] = reduce_curve(table, hardware, str(table.attrs["source"]))
    return found


def _gemm_grid(
    table: pd.DataFrame,
    hardware: HardwareSpec,
    peak: float,
    source: str,
    sizes: Sizes = (2.0, 2.0, 2.0),
) -> EfficiencyCurve:
    axes = {name: table[name] for name in ("k", "n", "rows")}
    share = gemm_share(table, peak, hardware.bandwidth, sizes)
    return _grid(table, axes, share, source)


def _prefill_grid(
    table: pd.DataFrame, heads: int, share: FloatArray, source: str
) -> EfficiencyCurve:
    axes = {"heads": table["requests"] * heads, "keys": table["tokens"]}
    return _grid(table, axes, share, source)


def _decode_grid(
    table: pd.DataFrame, kv_heads: int, hardware: HardwareSpec, source: str, kv_bytes: int = 2
) -> EfficiencyCurve:
    axes = {"kv_heads": table["requests"] * kv_heads, "context": table["context"]}
    share = decode_share(table, hardware.bandwidth, kv_bytes)
    return _grid(table, axes, share, source)


def reduce_curve(table: pd.DataFrame, hardware: HardwareSpec, source: str) -> EfficiencyCurve:
    """Return the all-reduce curve of the measured rows; it includes the latencies."""
    axes = {"gpus": table["gpus"], "bytes": table["bytes"]}
    share = all_reduce_share(table, hardware.link_bandwidth)
    return _grid(table, axes, share, source)


def _rows_for(table: pd.DataFrame, llm: LLMSpec, heads: int, kv_heads: int) -> pd.DataFrame:
    """Return the rows of this attention shape, or of the nearest query-head count within 1.5 x.

    KV heads and head dimension must agree, because they decide what is read.
    """
    same = table[(table["kv_heads"] == kv_heads) & (table["head_dim"] == llm.head_dim)]
    counts = same["heads"].to_numpy(np.float64)
    if len(counts):
        distance = np.abs(np.log(counts / heads))
        if distance.min() <= np.log(1.5):
            return pd.DataFrame(same[distance == distance.min()])
    known = table[["heads", "kv_heads", "head_dim"]].drop_duplicates().to_numpy().tolist()
    near = sorted(known, key=lambda row: abs(row[0] - heads) + abs(row[1] - kv_heads))[:4]
    raise InputError(
        "cost_model silicon",
        f"no attention rows for {heads} heads, {kv_heads} KV heads of {llm.head_dim} on one GPU "
        f"({llm.name})",
        f"one near the measured {near}; use roofline",
    )


def _grid(
    table: pd.DataFrame, axes: "dict[str, pd.Series[float]]", share: FloatArray, source: str
) -> EfficiencyCurve:
    """Return the curve through all rows.

    Tables are full grids, except for corners that do not fit the GPU's memory. A missing point gets
    the share of the next smaller size on the first axis (a smaller batch at the same context), or,
    where no size of the first axis was measured, on the last one.
    """
    points: dict[str, FloatArray] = {
        name: np.asarray(np.unique(column.to_numpy(np.float64)), dtype=np.float64)
        for name, column in axes.items()
    }
    index = tuple(
        np.searchsorted(points[name], column.to_numpy(np.float64)) for name, column in axes.items()
    )
    shape = [len(sizes) for sizes in points.values()]
    values = np.full(shape, np.nan)
    values[index] = share
    flat = pd.DataFrame(values.reshape(shape[0], -1)).ffill().bfill()
    flat = pd.DataFrame(flat.to_numpy().reshape(-1, shape[-1])).ffill(axis=1)
    return EfficiencyCurve.build(
        f"tables of {source}", points, flat.to_numpy().reshape(shape), source
    )


def gemm_share(
    table: pd.DataFrame, flops: float, bandwidth: float, sizes: Sizes = (2.0, 2.0, 2.0)
) -> FloatArray:
    """Return each row's share of its roofline max(flops / C, bytes / BW), at most 1.

    ``sizes`` are the bytes per weight, input and output element.
    """
    rows, n, k = (table[name].to_numpy(np.float64) for name in ("rows", "n", "k"))
    weight, read, written = sizes
    compute = 2 * rows * n * k / flops
    memory = (weight * n * k + rows * (read * k + written * n)) / bandwidth
    return _share(np.maximum(compute, memory), table)


def elementwise_share(table: pd.DataFrame, bandwidth: float) -> FloatArray:
    """Return each row's share of the bandwidth, capped at 1 because small data stays in caches."""
    return _share(table["bytes"].to_numpy(np.float64) / bandwidth, table)


def experts_share(
    table: pd.DataFrame, flops: float, bandwidth: float, size: float
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Return the sizes of each row on the axes of the curve, and its share of the roofline.

    ``size`` is the bytes per weight and per input element.
    """
    columns = ("tokens", "hidden", "width", "experts", "per_token")
    tokens, hidden, width, experts, per_token = (table[c].to_numpy(np.float64) for c in columns)
    elements = 3 * hidden * width
    active = np.empty(len(table))
    for key in {(e, k) for e, k in zip(experts, per_token, strict=True)}:
        same = (experts == key[0]) & (per_token == key[1])
        loads = expert_loads(tokens[same], int(key[0]), int(key[1]))
        batch = tokens[same][:, None]
        active[same] = (1 - (1 - np.minimum(loads / batch, 1.0)) ** batch).sum(axis=1)
    rows = tokens * per_token
    compute = 2 * elements * rows / flops
    moved = size * elements * active + rows * (
        hidden * (size + BF16_BYTES) + 3 * width * BF16_BYTES
    )
    at = {"elements": elements, "active": active, "rows": rows / active}
    return at, _share(np.maximum(compute, moved / bandwidth), table)


def prefill_share(table: pd.DataFrame, flops: float) -> FloatArray:
    """Return each row's share of the peak, from its causal (query, key) pairs; at most 1."""
    heads, dim, requests, tokens = (
        table[name].to_numpy(np.float64) for name in ("heads", "head_dim", "requests", "tokens")
    )
    pairs = requests * attention_pairs(tokens)
    return _share(4 * pairs * heads * dim / flops, table)


def decode_share(table: pd.DataFrame, bandwidth: float, kv_bytes: int = BF16_BYTES) -> FloatArray:
    """Return each row's share of the bandwidth, from the KV that it reads; at most 1."""
    kv_heads, dim, requests, context = (
        table[name].to_numpy(np.float64) for name in ("kv_heads", "head_dim", "requests", "context")
    )
    read = requests * context * 2 * kv_heads * dim * kv_bytes
    return _share(read / bandwidth, table)


def all_reduce_share(table: pd.DataFrame, link_bandwidth: float) -> FloatArray:
    """Return each row's share of the link for a ring's 2 (g - 1) / g of the message, at most 1."""
    gpus = table["gpus"].to_numpy(np.float64)
    moved = 2 * (gpus - 1) / gpus * table["bytes"].to_numpy(np.float64)
    return _share(moved / link_bandwidth, table)


def _share(ideal_s: npt.NDArray[np.float64], table: pd.DataFrame) -> FloatArray:
    return np.asarray(np.clip(ideal_s / table["seconds"].to_numpy(np.float64), 1e-9, 1.0))
