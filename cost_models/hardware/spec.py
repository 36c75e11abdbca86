"""GPU specs: peaks, links and efficiency curves, each with its source."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bssim.cost_models.hardware.curves import (
    EfficiencyCurve,
    experts_as_gemms,
    general_elementwise,
)
from bssim.errors import InputError, unknown_name

SPECS = Path(__file__).parents[1] / "specs" / "hardware"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader of libyaml if PyYAML has it: ten times faster on curves with 1,000 points."""

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
    "decode_attention_fp8": CURVES["decode_attention"],
    "decode_attention_fp8_trtllm": CURVES["decode_attention"],
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
    "decode_attention_fp8_trtllm": "decode_attention_fp8",
    "experts_fp8": "experts",
    "all_reduce_nccl": "all_reduce",
    "all_reduce_trtllm": "all_reduce",
}
"""Missing curve -> the curve whose shares are assumed instead."""
FORMATS = ("bf16", "fp16", "fp32", "fp8", "int8", "fp4")
"""Number formats that GEMMs multiply in."""
SECTIONS = ("peak_flops", "expanded_formats", "efficiency", "fixed_s", "corun")
_MERGED = ("peak_flops", "efficiency", "fixed_s")
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


def known_hardware() -> list[str]:
    """Return the names of the shipped specs."""
    return sorted(path.stem for path in SPECS.glob("*.yaml"))


def load_hardware(name_or_path: str | Path) -> HardwareSpec:
    """Return a shipped spec by name, or read one from a YAML file (a calibration profile).

    Raises InputError for unknown names, unreadable files and missing or wrong fields.

    >>> bssim.load_hardware("a100-80gb").bandwidth
    2039000000000.0
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        if str(name_or_path) not in known_hardware():
            raise unknown_name("hardware", str(name_or_path), known_hardware())
        path = SPECS / f"{name_or_path}.yaml"
    return _read(path)


def _read(path: Path) -> HardwareSpec:
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except OSError as error:
        raise InputError.saying(
            path,
            str(error.strerror),
            f"a hardware YAML file, or one of: {', '.join(known_hardware())}",
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError.saying(path, f"expected YAML; {error}") from None
    if not isinstance(data, dict):
        raise InputError(path, type(data).__name__, "a mapping of fields")
    if "base" in data:
        data = _on_base(data, f"{path}: base")
    known = {"name", "description", "measurement", "flops_format", *SECTIONS, *QUANTITIES}
    for key in data:
        if key not in known:
            raise unknown_name(f"{path}", key, known)
    sources: dict[str, str] = {}
    numbers = {
        key: _number(path, key, data.get(key), sources, least=0.0 if key == LATENCY else 1e-30)
        for key in QUANTITIES
    }
    efficiency = _mapping(path, "efficiency", data.get("efficiency"))
    _check_keys(f"{path}: efficiency", efficiency, (*CURVES, *OPTIONAL))
    curves = {key: _curve(path, key, efficiency.get(key), sources) for key in CURVES}
    optional = {
        key: _curve(path, key, efficiency[key], sources) for key in OPTIONAL if key in efficiency
    }
    fixed = _mapping(path, "fixed_s", data.get("fixed_s"))
    _check_keys(f"{path}: fixed_s", fixed, FIXED)
    fixed_s = {
        key: _number(path, f"fixed_s.{key}", fixed.get(key), sources, least=0.0) for key in FIXED
    }
    flops_format = str(data.get("flops_format", "bf16"))
    if flops_format not in FORMATS:
        raise unknown_name(f"{path}: flops_format", flops_format, FORMATS)
    peaks = _mapping(path, "peak_flops", data.get("peak_flops", {}))
    _check_keys(f"{path}: peak_flops", peaks, FORMATS)
    peak_flops = {
        key: _number(path, f"peak_flops.{key}", entry, sources) for key, entry in peaks.items()
    }
    expanded = _expanded(path, data.get("expanded_formats", {}), sources)
    return HardwareSpec(
        name=str(data.get("name", path.stem)),
        memory_bytes=numbers["memory_bytes"],
        bandwidth=numbers["bandwidth"],
        flops=numbers["flops"],
        link_bandwidth=numbers["link_bandwidth"],
        link_latency_s=numbers["link_latency_s"],
        gemm=curves["gemm"],
        prefill_attention=curves["prefill_attention"],
        decode_attention=curves["decode_attention"],
        all_reduce=curves["all_reduce"],
        fixed_s=fixed_s,
        flops_format=flops_format,
        peak_flops=peak_flops,
        expanded_formats=expanded,
        optional=optional,
        corun=_corun(path, data.get("corun")),
        sources=sources,
    )


def _expanded(path: Path, entries: object, sources: dict[str, str]) -> dict[str, str]:
    """Read ``{format: {value: w8a16, source: text}}`` and add the sources to ``sources``."""
    found = {}
    entries = _mapping(path, "expanded_formats", entries)
    _check_keys(f"{path}: expanded_formats", entries, FORMATS)
    for key, value in entries.items():
        entry = _mapping(path, f"expanded_formats.{key}", value)
        if entry.get("value") not in ("w4a16", "w8a16") or "source" not in entry:
            raise InputError(
                f"{path}: expanded_formats.{key}",
                repr(value),
                "{value: w4a16 or w8a16, source: TEXT}",
            )
        found[key] = str(entry["value"])
        sources[f"expanded_formats.{key}"] = str(entry["source"])
    return found


def _raw(name: str, where: str) -> dict[str, Any]:
    if name not in known_hardware():
        raise unknown_name(where, name, known_hardware())
    path = SPECS / f"{name}.yaml"
    data: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    return _on_base(data, where) if "base" in data else data


def _on_base(data: dict[str, Any], where: str) -> dict[str, Any]:
    """Return ``data`` merged over the spec that its ``base`` names; sections merge one level down.

    Inherited entries name the base in their source; the name of the base is not inherited.
    ``where`` locates ``base`` in error messages.
    """
    name = str(data.pop("base"))
    base = _raw(name, where)

    def inherited(entry: object) -> object:
        if isinstance(entry, dict) and "source" in entry:
            return {**entry, "source": f"as {name}: {entry['source']}"}
        return entry

    merged: dict[str, Any] = {key: inherited(entry) for key, entry in base.items() if key != "name"}
    for section in _MERGED:
        merged[section] = {key: inherited(entry) for key, entry in base.get(section, {}).items()}
    for key, value in data.items():
        if key in _MERGED and isinstance(value, dict):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    return merged


def _check_keys(where: str, found: Mapping[str, Any], known: Iterable[str]) -> None:
    for name in found:
        if name not in known:
            raise unknown_name(where, name, known)


def _mapping(path: Path, key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {key}", repr(value), "a mapping")
    return value


def _number(
    path: Path, key: str, entry: object, sources: dict[str, str], least: float = 1e-30
) -> float:
    """Read ``{value: number, source: text}`` and store the source under ``key``."""
    entry = _mapping(path, key, entry)
    try:
        if isinstance(entry["value"], bool):
            raise TypeError
        value = float(entry["value"])
        source = str(entry["source"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"{path}: {key}", repr(entry), "{value: NUMBER, source: TEXT}") from None
    if not (math.isfinite(value) and value >= least):
        raise InputError(f"{path}: {key}.value", repr(value), "a positive number")
    sources[key] = source
    return value


def _curve(path: Path, key: str, entry: object, sources: dict[str, str]) -> EfficiencyCurve:
    where = f"{path}: efficiency.{key}"
    entry = _mapping(path, f"efficiency.{key}", entry)
    known = CURVES[key] if key in CURVES else OPTIONAL[key]
    axes = {name: entry[name] for name in known if name in entry}
    _check_keys(where, entry, (*known, "values", "source"))
    if not (axes and "values" in entry and "source" in entry):
        raise InputError(
            where,
            ", ".join(entry) or "nothing",
            f"source, values, and the sizes of one or more of: {', '.join(known)}",
        )
    try:
        curve = EfficiencyCurve.build(where, axes, entry["values"], str(entry["source"]))
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError.saying(where, f"expected lists of numbers; {error}") from None
    sources[key] = curve.source
    return curve


def _corun(path: Path, entry: object) -> CoRunPoints | None:
    if entry is None:
        return None
    entry = _mapping(path, "corun", entry)
    try:
        pairs = {
            key: tuple((float(gemm), float(other)) for gemm, other in entry[key])
            for key in ("attention", "network")
        }
        return CoRunPoints(pairs["attention"], pairs["network"], str(entry["source"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(
            f"{path}: corun",
            repr(entry),
            "attention and network as lists of [GEMM rate, other rate], and source",
        ) from None
