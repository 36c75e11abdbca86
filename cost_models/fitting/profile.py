"""Build a hardware profile from measured operators: peaks, curves and their errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from bssim.cost_models.fitting.curve_fit import as_yaml_curve
from bssim.cost_models.fitting.link_fit import LinkFit, fit_link
from bssim.cost_models.fitting.operator_time import DIRTY_SPREAD, OperatorTime, marked
from bssim.cost_models.hardware import FIXED, EfficiencyCurve, HardwareSpec, load_hardware
from bssim.cost_models.step_cost import FloatArray
from bssim.errors import InputError
from bssim.whole_file import replacing


@dataclass(frozen=True, eq=False)
class Profile:
    """What `bssim calibrate --operators` found."""

    flops: float
    bandwidth: float
    curves: Mapping[str, EfficiencyCurve]
    errors: Mapping[str, FloatArray]
    """|predicted / measured - 1| of the held-out sizes of each curve."""
    spread: float
    """Spread of the repetitions, median over operators."""
    source: str
    flops_format: str = "bf16"
    """The number format of all measurements."""
    link: LinkFit | None = None
    """The links between GPUs; None: no all-reduce was measured."""

    @property
    def is_dirty(self) -> bool:
        """True if repetitions of operators differed too much to trust the medians."""
        return self.spread > DIRTY_SPREAD

    def as_yaml(self) -> str:
        """Return the fields of a hardware file that were measured."""
        lines = [
            f"flops_format: {self.flops_format}",
            f'flops: {{value: {self.flops:.4g}, source: "{self.source}, fastest GEMM"}}',
            f'bandwidth: {{value: {self.bandwidth:.4g}, source: "{self.source}, fastest read"}}',
        ]
        curves = dict(self.curves)
        if self.link is not None:
            # Measured with NCCL or gloo; the all-reduce kernels of engines were not measured.
            curves |= dict.fromkeys(
                ("all_reduce", "all_reduce_nccl", "all_reduce_trtllm"), self.link.curve
            )
            bandwidth, latency = f"{self.link.bandwidth:.4g}", f"{self.link.latency_s:.4g}"
            source = self.link.curve.source
            lines += [
                f'link_bandwidth: {{value: {bandwidth}, source: "{source}, best rate"}}',
                f'link_latency_s: {{value: {latency}, source: "{source}, least-squares line"}}',
            ]
        lines.append("fixed_s:")
        lines += [
            f'  {name}: {{value: 0.0, source: "inside the curve"}}'
            for name in curves
            if name in FIXED
        ]
        lines.append("efficiency:")
        lines += [as_yaml_curve(name, curve) for name, curve in curves.items()]
        return "\n".join(lines) + "\n"


def write_hardware(
    path: Path, *, base: str, measurement: Mapping[str, object], sections: Sequence[str]
) -> HardwareSpec:
    """Write measured sections as a hardware file based on the shipped spec ``base``; read it back.

    The file is written completely or not at all, because a part might be a valid file. The name of
    the hardware is the stem of the file. ``measurement`` gives device, software and date. Reading
    the file back finds an unusable file now.
    """
    head = yaml.safe_dump(
        {"name": path.stem, "base": base, "measurement": dict(measurement)}, sort_keys=False
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text("".join([head, *sections]), encoding="utf-8")
    return load_hardware(path)


def build_profile(
    times: Sequence[OperatorTime], source: str, flops_format: str = "bf16"
) -> Profile:
    """Return the profile of operators measured in ``flops_format``; held-out ones give its errors.

    Peaks are the fastest measured rates, so that no share exceeds 1. All-reduces are optional.
    Raises InputError if any other operator class was not measured.
    """
    reduces = [time for time in times if time.curve == "all_reduce"]
    link = fit_link(reduces, source) if reduces else None
    times = [time for time in times if time.curve != "all_reduce"]
    for kind in ("copy", "gemm", "prefill_attention", "decode_attention"):
        if not any(time.curve == kind for time in times):
            raise InputError("calibrate", f"no measurement of {kind}", "at least one")
    flops = max(time.flops / time.seconds for time in times)
    bandwidth = max(time.bytes / time.seconds for time in times if time.curve != "gemm")
    small = [t for t in times if t.curve == "gemm" and t.flops / flops < t.bytes / bandwidth]
    bandwidth = max([bandwidth, *(time.bytes / time.seconds for time in small)])
    spread = float(np.median([time.spread for time in times]))
    source = marked(source, spread)
    curves, errors = {}, {}
    kinds = ["gemm", "prefill_attention", "decode_attention"]
    if any(time.curve == "elementwise" for time in times):
        kinds.append("elementwise")
    for kind in kinds:
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
    if link is not None:
        errors["all_reduce"] = link.errors
    return Profile(flops, bandwidth, curves, errors, spread, source, flops_format, link)


def _share(time: OperatorTime, flops: float, bandwidth: float) -> float:
    """Return the share of the peak, the bandwidth or the roofline, as the curve defines it."""
    compute, memory = time.flops / flops, time.bytes / bandwidth
    ideal = {
        "gemm": max(compute, memory),
        "prefill_attention": compute,
        "decode_attention": memory,
        "elementwise": memory,
    }[time.curve]
    return min(ideal / time.seconds, 1.0)


def _curve(
    kind: str, seen: Sequence[OperatorTime], flops: float, bandwidth: float, source: str
) -> EfficiencyCurve:
    """Return the curve through the measured sizes; several measurements of a point are averaged.

    A size that did not fit into memory takes the share of the next smaller size on the first axis.
    """
    if len(seen[0].at) == 1:
        (axis,) = seen[0].at
        by_size = sorted(seen, key=lambda time: time.at[axis])
        shares = [_share(time, flops, bandwidth) for time in by_size]
        sizes = [time.at[axis] for time in by_size]
        return EfficiencyCurve.build(f"measured {kind}", {axis: sizes}, shares, source)
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
