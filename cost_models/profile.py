"""A hardware profile from measured operators: peaks, curves, their error, whether to trust it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from bssim.cost_models.curve_fit import as_yaml_curve
from bssim.cost_models.curves import EfficiencyCurve
from bssim.cost_models.hardware import HardwareSpec, load_hardware
from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.step_cost import FloatArray
from bssim.errors import InputError

DIRTY_SPREAD = 0.15
"""A median spread of repetitions above this makes a profile say so in every source."""


@dataclass(frozen=True, slots=True)
class OperatorTime:
    """A measured operator: where it stands on its curve, and what it does in how many seconds."""

    curve: str
    """A name of ``hardware.CURVES``, or ``copy``."""
    at: Mapping[str, float]
    """Sizes on the axes of the curve."""
    flops: float
    bytes: float
    seconds: float
    spread: float
    held_out: bool


@dataclass(frozen=True, eq=False)
class Profile:
    """What `bssim calibrate --operators` found."""

    flops: float
    bandwidth: float
    curves: Mapping[str, EfficiencyCurve]
    errors: Mapping[str, FloatArray]
    """|predicted / measured - 1| of the held-out sizes of each curve."""
    spread: float
    """Median over operators of their repetitions' spread."""
    source: str

    @property
    def is_dirty(self) -> bool:
        """True if repetitions differed too much to trust the medians."""
        return self.spread > DIRTY_SPREAD

    def as_yaml(self) -> str:
        """Return the fields of a hardware file that were measured."""
        lines = [
            f'flops: {{value: {self.flops:.4g}, source: "{self.source}, fastest GEMM"}}',
            f'bandwidth: {{value: {self.bandwidth:.4g}, source: "{self.source}, fastest read"}}',
            "fixed_s:",
        ]
        lines += [f'  {name}: {{value: 0.0, source: "inside the curve"}}' for name in self.curves]
        lines.append("efficiency:")
        lines += [as_yaml_curve(name, curve) for name, curve in self.curves.items()]
        return "\n".join(lines) + "\n"


def write_hardware(
    path: Path, *, base: str, measurement: Mapping[str, object], sections: Sequence[str]
) -> HardwareSpec:
    """Write measured sections as a hardware file over the shipped spec ``base``, and read it back.

    The file's stem is its name; ``measurement`` says on what, with what and when. A file that
    cannot be used is an error now.
    """
    head = yaml.safe_dump(
        {"name": path.stem, "base": base, "measurement": dict(measurement)}, sort_keys=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join([head, *sections]), encoding="utf-8")
    return load_hardware(path)


def operator_time(
    llm: LLMSpec, kind: str, sizes: Sequence[int], seconds: float, spread: float, held_out: bool
) -> OperatorTime:
    """Return one measurement of ``backends.torch_profile`` with its FLOPs and bytes."""
    if kind == "copy":
        return OperatorTime("copy", {}, 0.0, 2.0 * sizes[0], seconds, spread, held_out)
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
    pairs = requests * tokens * (tokens + 1) / 2
    flops = pairs * llm.prefill_flops_per_pair / llm.num_layers
    at = {"heads": float(requests * llm.num_attention_heads), "keys": float(tokens)}
    return OperatorTime(kind, at, flops, kv_bytes, seconds, spread, held_out)


def build_profile(times: Sequence[OperatorTime], source: str) -> Profile:
    """Return the profile of measured operators; held-out ones give its error.

    Peaks are the fastest rates seen, so that shares stay within 1. Raises InputError if an
    operator class was not measured.
    """
    for kind in ("copy", "gemm", "prefill_attention", "decode_attention"):
        if not any(time.curve == kind for time in times):
            raise InputError(f"calibrate: found no measurement of {kind}; expected at least one")
    flops = max(time.flops / time.seconds for time in times)
    bandwidth = max(time.bytes / time.seconds for time in times if time.curve != "gemm")
    small = [t for t in times if t.curve == "gemm" and t.flops / flops < t.bytes / bandwidth]
    bandwidth = max([bandwidth, *(time.bytes / time.seconds for time in small)])
    spread = float(np.median([time.spread for time in times]))
    if spread > DIRTY_SPREAD:
        source = f"{source}; DIRTY: repetitions differ by {spread:.0%}, measure again"
    curves, errors = {}, {}
    for kind in ("gemm", "prefill_attention", "decode_attention"):
        seen = [time for time in times if time.curve == kind and not time.held_out]
        held_out = [time for time in times if time.curve == kind and time.held_out]
        curve = _curve(kind, seen, flops, bandwidth, source)
        predicted = np.array([float(curve.at(**time.at)) for time in held_out])
        measured = np.array([_share(time, flops, bandwidth) for time in held_out])
        error = np.abs(measured / predicted - 1)
        if len(error):
            text = f"{source}; {len(error)} sizes held out: median error {np.median(error):.1%}"
            curve = EfficiencyCurve(curve.axes, curve.values, text)
        curves[kind], errors[kind] = curve, error
    return Profile(flops, bandwidth, curves, errors, spread, source)


def _share(time: OperatorTime, flops: float, bandwidth: float) -> float:
    """Return the share of the peak, the bandwidth or the roofline, as the curve counts it."""
    compute, memory = time.flops / flops, time.bytes / bandwidth
    ideal = {
        "gemm": max(compute, memory),
        "prefill_attention": compute,
        "decode_attention": memory,
    }[time.curve]
    return min(ideal / time.seconds, 1.0)


def _curve(
    kind: str, seen: Sequence[OperatorTime], flops: float, bandwidth: float, source: str
) -> EfficiencyCurve:
    """Return the curve through the measured sizes; several at one point give their mean.

    Sizes that did not fit the memory take the next smaller size's share on the first axis.
    """
    first, second = seen[0].at
    axes = {axis: sorted({time.at[axis] for time in seen}) for axis in (first, second)}
    values = np.full([len(points) for points in axes.values()], np.nan)
    for i, a in enumerate(axes[first]):
        for j, b in enumerate(axes[second]):
            shares = [
                _share(time, flops, bandwidth)
                for time in seen
                if (time.at[first], time.at[second]) == (a, b)
            ]
            if shares:
                values[i, j] = np.exp(np.mean(np.log(shares)))
            elif i:
                values[i, j] = values[i - 1, j]
    return EfficiencyCurve.build(f"measured {kind}", axes, values, source)
