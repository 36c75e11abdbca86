"""The hardware YAML file as a schema: `load.py` makes a `HardwareSpec` of what it checked."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, create_model

from bssim.cost_models.hardware.spec import CURVES, FIXED, FORMATS, LATENCY, OPTIONAL, QUANTITIES
from bssim.schema import UNSOURCED, Number, Quantity, QuantityFromZero, Sourced, Written


class Expanded(Sourced):
    """The format that a device expands weights to before it multiplies them, and the source."""

    value: Literal["w4a16", "w8a16"]


def _pair(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Pairs = list[Annotated[tuple[Number, Number], BeforeValidator(_pair)]]


class CoRun(Written):
    """Pairs of [GEMM rate, other rate], each relative to running alone."""

    attention: Pairs
    network: Pairs
    source: str = UNSOURCED


def _curve(name: str, axes: tuple[str, ...]) -> type[Written]:
    """Return the schema of a curve over one or more of ``axes``.

    `EfficiencyCurve.build` checks the numbers, as arrays.
    """
    sizes: dict[str, Any] = dict.fromkeys(axes, (Any, None))
    return create_model(
        f"Curve_{name}", __base__=Written, **sizes, values=(Any, ...), source=(str, UNSOURCED)
    )


def _section(name: str, needed: dict[str, Any], optional: dict[str, Any]) -> type[Written]:
    """Return the schema of a section whose keys have the types given."""
    required: dict[str, Any] = {key: (kind, ...) for key, kind in needed.items()}
    others: dict[str, Any] = {
        key: (kind, Field(default=None, validate_default=False)) for key, kind in optional.items()
    }
    return create_model(name, __base__=Written, **required, **others)


_Efficiency = _section(
    "Efficiency",
    {name: _curve(name, axes) for name, axes in CURVES.items()},
    {name: _curve(name, axes) for name, axes in OPTIONAL.items()},
)
_Fixed = _section("Fixed", dict.fromkeys(FIXED, QuantityFromZero), {})
_Peaks = _section("Peaks", {}, dict.fromkeys(FORMATS, Quantity))
_Expanded = _section("ExpandedFormats", {}, dict.fromkeys(FORMATS, Expanded))


class _Head(Written):
    base: str | None = None
    name: str | None = None
    description: str | None = None
    measurement: Any = None
    flops_format: Literal["bf16", "fp16", "fp32", "fp8", "int8", "fp4"] = "bf16"
    corun: CoRun | None = None


_QUANTITIES: dict[str, Any] = {
    key: (QuantityFromZero if key == LATENCY else Quantity, ...) for key in QUANTITIES
}
HardwareFile = create_model(
    "HardwareFile",
    __base__=_Head,
    **_QUANTITIES,
    efficiency=(_Efficiency, ...),
    fixed_s=(_Fixed, ...),
    peak_flops=(_Peaks, _Peaks()),
    expanded_formats=(_Expanded, _Expanded()),
)
"""All keys of a file after its ``base`` is filled in."""
