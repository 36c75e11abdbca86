"""GPU specs: peaks, links and efficiency curves, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from bssim.cost_models.hardware.curves import (
    EfficiencyCurve,
    experts_as_gemms,
    general_elementwise,
)
from bssim.errors import InputError

LATENCY = "link_latency_s"
QUANTITIES = ("memory_bytes", "bandwidth", "flops", "link_bandwidth", LATENCY)
CURVES: Mapping[str, tuple[str, ...]] = {
    "gemm": ("k", "n", "rows"),
    "prefill_attention": ("heads", "keys"),
    "decode_attention": ("kv_heads", "context"),
    "all_reduce": ("gpus", "bytes"),
}
"""The possible axes of each curve, in the order of the dimensions of its values."""
_GEMM, _REDUCE = CURVES["gemm"], CURVES["all_reduce"]
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "gemm_fp8": _GEMM,
    "gemm_int8": _GEMM,
    "gemm_fp4": _GEMM,
    "gemm_w8a16": _GEMM,
    "gemm_w4a16": _GEMM,
    "prefill_attention_fp8": CURVES["prefill_attention"],
    "decode_attention_fp8": CURVES["decode_attention"],
    "elementwise": ("bytes",),
    "experts": ("elements", "active", "rows"),
    "experts_fp8": ("elements", "active", "rows"),
    "all_reduce_nccl": _REDUCE,
    "all_reduce_trtllm": _REDUCE,
}
"""Curves that a device may lack; `HardwareSpec.curve` replaces a missing one."""
STAND_INS = {
    "gemm_fp8": "gemm",
    "gemm_int8": "gemm_fp8",
    "gemm_fp4": "gemm_fp8",
    "gemm_w8a16": "gemm",
    "gemm_w4a16": "gemm_w8a16",
    "decode_attention_fp8": "decode_attention",
    "experts_fp8": "experts",
    "all_reduce_nccl": "all_reduce",
    "all_reduce_trtllm": "all_reduce",
}
"""Missing curve -> the curve whose shares are assumed instead."""
FORMATS = ("bf16", "fp16", "fp32", "fp8", "int8", "fp4")
"""Number formats that GEMMs multiply in."""
FIXED = ("gemm", "prefill_attention", "decode_attention", "all_reduce", "step")


@dataclass(frozen=True, slots=True)
class CoRunPoints:
    """Rates of two operators that run together, each relative to running alone.

    Pairs of (GEMM rate, other rate) from measured co-runs of GEMMs with attention and with network
    transfers.
    """

    attention: tuple[tuple[float, float], ...]
    network: tuple[tuple[float, float], ...]
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class HardwareSpec:
    """One GPU (or CPU socket). Rates are peaks; the curves give the share that operators reach."""

    name: str
    memory_bytes: float
    """Memory of the device, before any reserve."""
    bandwidth: float
    """Peak memory bandwidth, B/s."""
    flops: float
    """Peak dense FLOP/s in `flops_format`; bf16 and fp16 are equally fast."""
    link_bandwidth: float
    """Peak bandwidth from a GPU to its peers, one direction, B/s."""
    link_latency_s: float
    """Seconds per hop of a collective."""
    gemm: EfficiencyCurve
    """Share of the roofline max(flops, bytes) over ``rows`` and the ``k`` x ``n`` weights."""
    prefill_attention: EfficiencyCurve
    """Share of ``flops`` over ``heads`` (query heads x chunks) and ``keys`` (mean KV tokens at the
    end of a chunk)."""
    decode_attention: EfficiencyCurve
    """Share of ``bandwidth`` over ``kv_heads`` (KV heads x requests) and ``context`` (mean KV
    tokens per request)."""
    all_reduce: EfficiencyCurve
    """Share of ``link_bandwidth`` over ``gpus`` and message ``bytes``."""
    fixed_s: Mapping[str, float]
    """Seconds per launch of each operator class, and per step."""
    flops_format: str = "bf16"
    """The format of `flops`; calibration with a float32 model measures ``fp32``."""
    peak_flops: Mapping[str, float] = field(default_factory=dict)
    """Peak dense FLOP/s in other formats; a format that is missing cannot be priced."""
    expanded_formats: Mapping[str, str] = field(default_factory=dict)
    """Weight formats that this device's kernels expand first -> the format of their GEMMs."""
    optional: Mapping[str, EfficiencyCurve] = field(default_factory=dict)
    """Curves of `OPTIONAL` that this device has; use `curve` to read them."""
    corun: CoRunPoints | None = None
    """Measured co-run points of this device; None: the published ones."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Name of a quantity, curve or fixed cost -> its provenance."""

    def curve(self, name: str) -> EfficiencyCurve:
        """Return a curve of `CURVES` or `OPTIONAL`.

        A missing curve is replaced as in `STAND_INS`, by `experts_as_gemms` or by
        `general_elementwise`, and its source says so.
        """
        if name in self.optional:
            return self.optional[name]
        if name in CURVES:
            found: EfficiencyCurve = getattr(self, name)
            return found
        if name in STAND_INS:
            stand_in = self.curve(STAND_INS[name])
            text = f"assumed: the shares of {STAND_INS[name]}; {stand_in.source}"
            return replace(stand_in, source=text)
        if name == "elementwise":
            return general_elementwise(self.bandwidth)
        return experts_as_gemms(self.gemm)

    def mean_peak(self, weights: Mapping[str, int]) -> float:
        """Return the FLOP/s of GEMMs with so many ``weights`` per format, each at its peak.

        Raises InputError as `peak` does.
        """
        if len(weights) == 1:
            return self.peak(next(iter(weights)))
        seconds = sum(elements / self.peak(name) for name, elements in weights.items())
        return sum(weights.values()) / seconds

    def peak(self, gemm_format: str) -> float:
        """Return the peak FLOP/s of GEMMs in a format of `Precision.gemm_format`.

        bf16 and fp16 have the same peak. ``w4a16`` and ``w8a16`` expand weights to 16 bits before
        they multiply. Raises InputError for a format without a peak on this device.
        """
        wide = {"fp16": "bf16", "w4a16": "bf16", "w8a16": "bf16"}.get(gemm_format, gemm_format)
        if wide == self.flops_format:
            return self.flops
        if wide in self.peak_flops:
            return self.peak_flops[wide]
        known = ", ".join((self.flops_format, *self.peak_flops))
        raise InputError(
            self.name,
            f"no peak for {wide} GEMMs",
            f"a precision whose GEMMs use one of: {known}",
        )
