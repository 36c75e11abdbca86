"""The silicon cost model: the roofline's arithmetic on measured tables instead of fitted curves.

Every measured row becomes a point of an efficiency curve, so a step at a measured size takes the
measured time, and sizes between are interpolated in the logs. Attention is looked up for the
model's own heads (or the nearest measured count), at the step's request count and mean context;
its FLOPs and bytes are the step's sums. GEMM curves are cut down to one curve over rows for each
weight shape when the model is made, which keeps pricing 200,000 steps to a few numpy operations.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from bssim.cost_models import operator_tables as tables
from bssim.cost_models.curves import EfficiencyCurve
from bssim.cost_models.engine_costs import NO_ENGINE, EngineCosts
from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm.spec import LLMSpec
from bssim.cost_models.operator_tables import OperatorTables, load_tables
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import FloatArray
from bssim.errors import InputError


class SiliconCostModel(RooflineCostModel):
    """Prices steps of a dense GQA, MQA or MHA model from measured tables."""

    name = "silicon"

    def __init__(
        self, llm: LLMSpec, hardware: HardwareSpec, tp: int = 1, engine: EngineCosts = NO_ENGINE
    ) -> None:
        """Raise InputError where tables, or rows for this model's attention, are missing."""
        if llm.is_mla or llm.is_moe:
            raise InputError(
                "cost_model silicon",
                llm.name,
                "a dense model without MLA (the tables' MoE and MLA rows are not read); "
                "use roofline",
            )
        measured = load_tables(hardware.name)
        super().__init__(llm, measured_hardware(measured, llm, hardware, tp), tp, engine)


def measured_hardware(
    measured: OperatorTables, llm: LLMSpec, hardware: HardwareSpec, tp: int
) -> HardwareSpec:
    """Return ``hardware`` with its curves replaced by the measured rows that ``llm`` needs."""
    llm.check_tp(tp)
    heads = llm.num_attention_heads // tp
    kv_heads = llm.num_kv_heads // llm.kv_shards(tp)
    gemm = measured.gemm
    prefill = _rows_for(measured.prefill_attention, llm, heads, kv_heads)
    decode = _rows_for(measured.decode_attention, llm, heads, kv_heads)
    curves: dict[str, EfficiencyCurve] = {
        "gemm": _grid(
            gemm,
            {"k": gemm["k"], "n": gemm["n"], "rows": gemm["rows"]},
            tables.gemm_share(gemm, hardware.flops, hardware.bandwidth),
            measured.source,
        ),
        "prefill_attention": _grid(
            prefill,
            {"heads": prefill["requests"] * heads, "keys": prefill["tokens"]},
            tables.prefill_share(prefill, hardware.flops),
            measured.source,
        ),
        "decode_attention": _grid(
            decode,
            {"kv_heads": decode["requests"] * kv_heads, "context": decode["context"]},
            tables.decode_share(decode, hardware.bandwidth),
            measured.source,
        ),
    }
    if len(measured.all_reduce):
        curves["all_reduce"] = all_reduce_curve(measured, hardware)
    sources = {**hardware.sources, **{name: curve.source for name, curve in curves.items()}}
    if "all_reduce" not in curves:
        sources["all_reduce"] = f"not in the tables; {hardware.sources['all_reduce']}"
    return replace(
        hardware,
        gemm=curves["gemm"],
        prefill_attention=curves["prefill_attention"],
        decode_attention=curves["decode_attention"],
        all_reduce=curves.get("all_reduce", hardware.all_reduce),
        link_latency_s=0.0 if "all_reduce" in curves else hardware.link_latency_s,
        fixed_s={**hardware.fixed_s, **dict.fromkeys(curves, 0.0)},
        sources=sources,
    )


def all_reduce_curve(measured: OperatorTables, hardware: HardwareSpec) -> EfficiencyCurve:
    """Return the all-reduce curve of the measured rows; latencies are inside it."""
    table = measured.all_reduce
    return _grid(
        table,
        {"gpus": table["gpus"], "bytes": table["bytes"]},
        tables.all_reduce_share(table, hardware.link_bandwidth),
        measured.source,
    )


def _rows_for(table: pd.DataFrame, llm: LLMSpec, heads: int, kv_heads: int) -> pd.DataFrame:
    """Return the rows of this attention shape, or of the nearest query-head count up to 1.5 x off.

    KV heads and head dimension decide what is read and must agree.
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

    Tables are full grids but for the corners that do not fit the GPU's memory; such a point takes
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
