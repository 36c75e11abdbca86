"""The silicon cost model: the roofline's arithmetic on measured tables instead of fitted curves.

Every measured row becomes a point of an efficiency curve, so a step at a measured size takes the
measured time, and sizes in between are interpolated log-log. Attention uses the rows of the model's
own heads (or the nearest measured count) at the step's request count and mean context; its FLOPs
and bytes are the step's sums. Construction reduces the GEMM curves to one curve over rows per
weight shape, so pricing 200,000 steps takes a few numpy operations.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from bssim.cost_models.engine_costs import NO_ENGINE, EngineCosts
from bssim.cost_models.hardware.curves import EfficiencyCurve
from bssim.cost_models.hardware.spec import HardwareSpec
from bssim.cost_models.llm.precision import LINEARS
from bssim.cost_models.llm.spec import LLMSpec
from bssim.cost_models.roofline import ElementwiseResource, RooflineCostModel
from bssim.cost_models.silicon import tables
from bssim.cost_models.silicon.tables import OperatorTables, load_tables
from bssim.cost_models.step_cost import FloatArray
from bssim.errors import InputError


class SiliconCostModel(RooflineCostModel):
    """Prices steps of a GQA, MQA or MHA model from measured tables.

    Elementwise kernels and routed experts use the curves that were fitted to their rows.
    """

    name = "silicon"

    def __init__(
        self,
        llm: LLMSpec,
        hardware: HardwareSpec,
        tp: int = 1,
        engine: EngineCosts = NO_ENGINE,
        *,
        elementwise: ElementwiseResource = "compute",
    ) -> None:
        """Raise InputError if tables, or rows for this model's attention, are missing."""
        if llm.is_mla:
            raise InputError(
                "cost_model silicon",
                llm.name,
                "a model without MLA (the tables' MLA rows are not read); use roofline",
            )
        measured = load_tables(hardware.name)
        super().__init__(
            llm,
            measured_hardware(measured, llm, hardware, tp),
            tp,
            engine,
            elementwise=elementwise,
        )


def measured_hardware(
    measured: OperatorTables, llm: LLMSpec, hardware: HardwareSpec, tp: int
) -> HardwareSpec:
    """Return ``hardware`` with its curves replaced by the measured rows that ``llm`` needs."""
    llm.check_tp(tp)
    heads = llm.num_attention_heads // tp
    kv_heads = llm.num_kv_heads // llm.kv_shards(tp)
    prefill = _rows_for(measured.prefill_attention, llm, heads, kv_heads)
    decode = _rows_for(measured.decode_attention, llm, heads, kv_heads)
    curves: dict[str, EfficiencyCurve] = {
        "gemm": _gemm_grid(measured.gemm, hardware, hardware.flops, measured.source),
        "prefill_attention": _grid(
            prefill,
            {"heads": prefill["requests"] * heads, "keys": prefill["tokens"]},
            tables.prefill_share(prefill, hardware.flops),
            measured.source,
        ),
        "decode_attention": _decode_grid(decode, kv_heads, hardware, measured.source),
    }
    all_reduce = replace(
        hardware.all_reduce, source=f"not in the tables; {hardware.all_reduce.source}"
    )
    if len(measured.all_reduce):
        all_reduce = curves["all_reduce"] = reduce_curve(
            measured.all_reduce, hardware, measured.source
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
        optional={**hardware.optional, **_optional(measured, llm, hardware, heads, kv_heads)},
        link_latency_s=0.0 if "all_reduce" in curves else hardware.link_latency_s,
        fixed_s={**hardware.fixed_s, **dict.fromkeys(curves, 0.0)},
        sources=sources,
    )


def _optional(
    measured: OperatorTables, llm: LLMSpec, hardware: HardwareSpec, heads: int, kv_heads: int
) -> dict[str, EfficiencyCurve]:
    """Return the optional curves that ``llm`` needs, through their measured rows.

    Elementwise kernels keep the fitted curve, because their rows scatter at equal sizes.
    """
    found = {}
    precision = llm.precision
    for name in {f"gemm_{precision.gemm_format(kind)}" for kind in LINEARS}:
        if name in measured.others:
            table = measured.others[name]
            source = str(table.attrs["source"])
            peak = hardware.peak(tables.PEAK_FORMATS[name])
            sizes = tables.gemm_sizes(name, source)
            found[name] = _gemm_grid(table, hardware, peak, source, sizes)
    if llm.kv_dtype_bytes < llm.dtype_bytes and "decode_attention_fp8" in measured.others:
        table = measured.others["decode_attention_fp8"]
        rows = _rows_for(table, llm, heads, kv_heads)
        found["decode_attention_fp8"] = _decode_grid(
            rows, kv_heads, hardware, str(table.attrs["source"]), kv_bytes=1
        )
    for name in tables.REDUCE_TABLES:
        if name in measured.others:
            table = measured.others[name]
            found[name] = reduce_curve(table, hardware, str(table.attrs["source"]))
    return found


def _gemm_grid(
    table: pd.DataFrame,
    hardware: HardwareSpec,
    peak: float,
    source: str,
    sizes: tables.Sizes = (2.0, 2.0, 2.0),
) -> EfficiencyCurve:
    axes = {name: table[name] for name in ("k", "n", "rows")}
    share = tables.gemm_share(table, peak, hardware.bandwidth, sizes)
    return _grid(table, axes, share, source)


def _decode_grid(
    table: pd.DataFrame, kv_heads: int, hardware: HardwareSpec, source: str, kv_bytes: int = 2
) -> EfficiencyCurve:
    axes = {"kv_heads": table["requests"] * kv_heads, "context": table["context"]}
    share = tables.decode_share(table, hardware.bandwidth, kv_bytes)
    return _grid(table, axes, share, source)


def reduce_curve(table: pd.DataFrame, hardware: HardwareSpec, source: str) -> EfficiencyCurve:
    """Return the all-reduce curve of the measured rows; it includes the latencies."""
    axes = {"gpus": table["gpus"], "bytes": table["bytes"]}
    share = tables.all_reduce_share(table, hardware.link_bandwidth)
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
    the share of the next smaller size on the first axis (a smaller batch at the same context).
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
    return EfficiencyCurve.build(
        f"tables of {source}", points, flat.to_numpy().reshape(shape), source
    )
