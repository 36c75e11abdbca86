"""Fit the efficiency curves of a device to 70 % of its measured rows; report errors on the rest.

``python -m bssim.cost_models.fitting.curve_fit a100-80gb`` prints the errors and the ``efficiency``
section of the device's YAML; ``... a100-80gb trtllm`` fits TensorRT-LLM's kernels. A curve is a
small grid. Its points minimise the squared relative error of the log-log interpolation (linear
least squares in log share, lightly smoothed).
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from bssim.cost_models import silicon
from bssim.cost_models.hardware import EfficiencyCurve, HardwareSpec, load_hardware
from bssim.cost_models.silicon import OperatorTables, load_tables, load_trtllm_tables
from bssim.cost_models.step_cost import FloatArray

FIT_SHARE = 0.7
"""Share of rows that curves are fitted to; the others are held out."""
SMOOTHING = 0.05
"""Weight of the differences between neighbouring grid points, relative to the error of one row.
These are first differences on the outer axes and second differences on the last axis. So a grid
point without rows extends its neighbours as a constant or as a line."""

GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "gemm": {
        "k": (512, 2048, 4096, 16384),
        "n": (512, 1024, 2048, 3072, 4096, 5120, 6144, 7168, 8192, 16384, 65536),
        "rows": (
            *(1, 16, 32, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 1280, 1536),
            *(2048, 2304, 2560, 3072, 4096, 8192),
        ),
    },
    "prefill_attention": {
        "heads": (8, 16, 32, 64, 128, 256, 1024, 8192),
        "keys": (64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 8192, 16384),
    },
    "decode_attention": {
        "kv_heads": tuple(float(2**i) for i in range(15)),
        "context": (1, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536, 131072),
    },
    "all_reduce": {
        "gpus": (2, 4, 8),
        "bytes": tuple(float(2**i) for i in (8, 12, 15, 17, 19, 21, 22, 23, 24, 26, 28, 30)),
    },
}

_GEMM_GRID: Mapping[str, Sequence[float]] = {
    "k": (512, 2048, 4096, 16384),
    "n": (512, 1024, 2048, 4096, 6144, 8192, 16384, 65536),
    "rows": (1, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192),
}
_EXPERT_GRID: Mapping[str, Sequence[float]] = {
    "elements": (5e5, 2e6, 8e6, 3.2e7, 1.8e8),
    "active": (1, 4, 16, 64, 256),
    "rows": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384),
}
OPTIONAL_GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    **dict.fromkeys(silicon.GEMM_TABLES, _GEMM_GRID),
    "prefill_attention_fp8": GRIDS["prefill_attention"],
    "decode_attention_fp8": GRIDS["decode_attention"],
    "elementwise": {"bytes": tuple(float(2**i) for i in (10, *range(16, 34)))},
    "experts": _EXPERT_GRID,
    "experts_fp8": _EXPERT_GRID,
    "all_reduce_nccl": GRIDS["all_reduce"],
    "all_reduce_trtllm": GRIDS["all_reduce"],
}
"""Grids of the curves that a device may lack."""


@dataclass(frozen=True, eq=False)
class CurveFit:
    """A fitted curve and its relative errors in seconds on held-out rows."""

    curve: EfficiencyCurve
    rows: int
    held_out_errors: FloatArray
    """|predicted / measured - 1| of each held-out row."""

    def describe(self) -> str:
        """Return rows, median, 90 % and worst error as text."""
        median, most, worst = np.quantile(self.held_out_errors, (0.5, 0.9, 1.0))
        return (
            f"{self.rows} rows, 30 % held out: median error {median:.1%}, 90 % within "
            f"{most:.1%}, worst {worst:.0%}"
        )


def _interpolation_weights(
    axes: Mapping[str, Sequence[float]], at: Mapping[str, npt.NDArray[np.float64]]
) -> FloatArray:
    """Return the weight of each grid point for each row, shape (rows, grid points)."""
    count = len(next(iter(at.values())))
    weights = np.ones((count, 1))
    for name, points in axes.items():
        logs, identity = np.log(np.asarray(points, dtype=np.float64)), np.eye(len(points))
        hats = np.stack([np.interp(np.log(at[name]), logs, one) for one in identity], axis=1)
        weights = (weights[:, :, None] * hats[:, None, :]).reshape(count, -1)
    return np.asarray(weights)


def _differences(shape: Sequence[int]) -> FloatArray:
    """Return second differences on the last axis and first ones on the others.

    The shape is (differences, grid points).
    """
    size = int(np.prod(shape))
    points = np.eye(size).reshape(*shape, size)
    last = len(shape) - 1
    found = [
        np.diff(points, 2 if axis == last else 1, axis=axis).reshape(-1, size)
        for axis in range(len(shape))
    ]
    return np.concatenate(found)


def fit_curve(
    name: str,
    at: Mapping[str, npt.NDArray[np.float64]],
    share: FloatArray,
    source: str,
    rng: np.random.Generator,
) -> CurveFit:
    """Fit the grid of ``name`` to a random 70 % of the rows, whose sizes are in ``at``."""
    from scipy.sparse import csr_matrix, vstack
    from scipy.sparse.linalg import lsqr

    axes = GRIDS[name] if name in GRIDS else OPTIONAL_GRIDS[name]
    seen = rng.random(len(share)) < FIT_SHARE
    logs = np.log(share)
    mean = logs[seen].mean()
    weights = csr_matrix(_interpolation_weights(axes, at))
    smooth = SMOOTHING * _differences([len(sizes) for sizes in axes.values()])
    system = vstack([weights[seen], csr_matrix(smooth)])
    target = np.concatenate([logs[seen] - mean, np.zeros(len(smooth))])
    points = lsqr(system, target, iter_lim=2000)[0] + mean
    values = np.exp(np.minimum(points, 0.0)).reshape([len(sizes) for sizes in axes.values()])
    curve = EfficiencyCurve.build(name, axes, np.maximum(values.round(4), 1e-4), source)
    predicted = curve.at(**{key: sizes[~seen] for key, sizes in at.items()})
    errors = np.abs(share[~seen] / predicted - 1)
    return CurveFit(curve, len(share), errors)


def fit_device(hardware: HardwareSpec, measured: OperatorTables, seed: int = 0) -> list[CurveFit]:
    """Return the fits of one device, in the order of GRIDS (no all-reduce if none was measured).

    The fits use GEMMs with n, k >= 512 and at most 8,192 rows, and attention with head dimension
    128, 3 to 8 query heads per KV head, and, for prefill, at least 8 heads and 64 tokens.
    """
    rng = np.random.default_rng(seed)
    source = measured.source.replace("measured", "fitted to measurements")
    gemm = measured.gemm
    gemm = gemm[(gemm["n"] >= 512) & (gemm["k"] >= 512) & (gemm["rows"] <= 8192)]
    at_prefill, prefill = _prefill_rows(measured.prefill_attention)
    decode = _grouped_query(measured.decode_attention)
    fits = [
        fit_curve(
            "gemm",
            {name: _floats(gemm[name]) for name in ("k", "n", "rows")},
            silicon.gemm_share(gemm, hardware.flops, hardware.bandwidth),
            source,
            rng,
        ),
        fit_curve(
            "prefill_attention",
            at_prefill,
            silicon.prefill_share(prefill, hardware.flops),
            source,
            rng,
        ),
        fit_curve(
            "decode_attention",
            {
                "kv_heads": _floats(decode["kv_heads"] * decode["requests"]),
                "context": _floats(decode["context"]),
            },
            silicon.decode_share(decode, hardware.bandwidth),
            source,
            rng,
        ),
    ]
    if len(measured.all_reduce):
        reduce = measured.all_reduce
        fits.append(
            fit_curve(
                "all_reduce",
                {"gpus": _floats(reduce["gpus"]), "bytes": _floats(reduce["bytes"])},
                silicon.all_reduce_share(reduce, hardware.link_bandwidth),
                str(reduce.attrs["source"]).replace("measured", "fitted to measurements"),
                rng,
            )
        )
    return fits


def fit_optional(
    hardware: HardwareSpec, measured: OperatorTables, seed: int = 0
) -> dict[str, CurveFit]:
    """Return the fits of the optional curves that have rows in the tables, by name."""
    found = {}
    for name, table in measured.others.items():
        source = str(table.attrs["source"]).replace("measured", "fitted to measurements")
        at, share = _optional_rows(name, table, hardware)
        found[name] = fit_curve(name, at, share, source, np.random.default_rng(seed))
    return found


def _optional_rows(
    name: str, table: pd.DataFrame, hardware: HardwareSpec
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Return the sizes and the shares of the rows of an optional curve."""
    if name in silicon.GEMM_TABLES:
        table = table[(table["n"] >= 512) & (table["k"] >= 512) & (table["rows"] <= 8192)]
        sizes = silicon.gemm_sizes(name, str(table.attrs["source"]))
        peak = hardware.peak(silicon.PEAK_FORMATS[name])
        at = {axis: _floats(table[axis]) for axis in ("k", "n", "rows")}
        return at, silicon.gemm_share(table, peak, hardware.bandwidth, sizes)
    if name in silicon.EXPERT_TABLES:
        peak = hardware.peak("fp8" if name.endswith("fp8") else "bf16")
        size = silicon.EXPERT_TABLES[name][1]
        return silicon.experts_share(table, peak, hardware.bandwidth, size)
    if name == "elementwise":
        at = {"bytes": _floats(table["bytes"])}
        return at, silicon.elementwise_share(table, hardware.bandwidth)
    if name in silicon.REDUCE_TABLES:
        at = {"gpus": _floats(table["gpus"]), "bytes": _floats(table["bytes"])}
        return at, silicon.all_reduce_share(table, hardware.link_bandwidth)
    if name == "prefill_attention_fp8":
        at, prefill = _prefill_rows(table)
        return at, silicon.prefill_share(prefill, hardware.peak("fp8"))
    decode = _grouped_query(table)
    at = {
        "kv_heads": _floats(decode["kv_heads"] * decode["requests"]),
        "context": _floats(decode["context"]),
    }
    return at, silicon.decode_share(decode, hardware.bandwidth, kv_bytes=1)


def _prefill_rows(table: pd.DataFrame) -> tuple[dict[str, FloatArray], pd.DataFrame]:
    """Return the sizes of the rows of attention over prompts that are fitted, and the rows."""
    rows = _grouped_query(table)
    rows = rows[(rows["tokens"] >= 64) & (rows["heads"] >= 8)]
    at = {"heads": _floats(rows["heads"] * rows["requests"]), "keys": _floats(rows["tokens"])}
    return at, rows


def _grouped_query(table: pd.DataFrame) -> pd.DataFrame:
    group = table["heads"] / table["kv_heads"]
    return table[(table["head_dim"] == 128) & (group >= 3) & (group <= 8)]


def _floats(column: "pd.Series[float]") -> FloatArray:
    return np.asarray(column.to_numpy(np.float64), dtype=np.float64)


def as_yaml(name: str, fit: CurveFit) -> str:
    """Return a fit as an entry of the ``efficiency`` section, with its error in the source."""
    return as_yaml_curve(name, replace(fit.curve, source=f"{fit.curve.source}; {fit.describe()}"))


def as_yaml_curve(name: str, curve: EfficiencyCurve) -> str:
    """Return a curve as an entry of the ``efficiency`` section of a hardware file."""
    lines = [f"  {name}:", f'    source: "{curve.source}"']
    for axis, points in curve.axes.items():
        lines.append(f"    {axis}: {_inline(points)}")
    lines.append(f"    values:{_nested(curve.values, 6)}")
    return "\n".join(lines)


def _inline(row: FloatArray) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in row) + "]"


def _nested(values: FloatArray, indent: int) -> str:
    """Return the rows of a YAML list of lists, each on its own line."""
    if values.ndim == 1:
        return " " + _inline(values)
    pad = "\n" + " " * indent
    return "".join(f"{pad}- {_nested(part, indent + 2).lstrip()}" for part in values)


def main(hardware_name: str, kernels: str = "vllm") -> None:
    """Print the errors of all curves, then the efficiency section.

    With ``kernels="trtllm"``, print a hardware file that is based on the device and has the curves
    of TensorRT-LLM's kernels.
    """
    hardware = load_hardware(hardware_name)
    if kernels == "trtllm":
        measured = load_trtllm_tables(hardware_name)
        fits = dict(zip(GRIDS, fit_device(hardware, measured), strict=False))
        print(f"base: {hardware_name}\nname: {hardware_name}")
    else:
        measured = load_tables(hardware_name)
        fits = dict(zip(GRIDS, fit_device(hardware, measured), strict=False))
    fits |= fit_optional(hardware, measured)
    for name, fit in fits.items():
        print(f"{hardware_name} {name}: {fit.describe()}", file=sys.stderr)
    print("efficiency:")
    for name, fit in fits.items():
        print(as_yaml(name, fit))


if __name__ == "__main__":
    main(*sys.argv[1:])
