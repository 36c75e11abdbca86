"""Load a HardwareSpec: a shipped one by name, or a YAML file of the user."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bssim.cost_models.hardware.curves import EfficiencyCurve
from bssim.cost_models.hardware.spec import (
    CURVES,
    FIXED,
    FORMATS,
    OPTIONAL,
    QUANTITIES,
    CoRunPoints,
    HardwareSpec,
)
from bssim.errors import InputError, unknown_name
from bssim.yaml_file import YamlFile, read_yaml

SPECS = Path(__file__).parents[1] / "specs" / "hardware"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGED = ("peak_flops", "efficiency", "fixed_s")
"""Sections whose keys are merged with those of a ``base``."""


def known_hardware() -> list[str]:
    """Return the names of the shipped specs."""
    return sorted(path.stem for path in SPECS.glob("*.yaml"))


def load_hardware(name_or_path: str | Path) -> HardwareSpec:
    """Return a shipped spec by name, or read one from a YAML file (a calibration profile).

    A number may stand alone or as ``{value: NUMBER, source: TEXT}``; alone, its source says that
    none was given. Raises InputError for unknown names, unreadable files and missing or wrong
    fields.

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
    # pydantic is imported only for a file
    from bssim.cost_models.hardware.schema import HardwareFile
    from bssim.schema import validated

    expected = f"a hardware YAML file, or one of: {', '.join(known_hardware())}"
    file = read_yaml(path, expected, large=True)
    data = file.data
    if isinstance(data, dict) and "base" in data:
        data = _on_base(data, file.where("base"))
    found: Any = validated(file, HardwareFile, data)
    sources: dict[str, str] = {}

    def value(key: str, quantity: Any) -> Any:
        """Return the value of a sourced entry, and note its source under ``key``."""
        sources[key] = quantity.source
        return quantity.value

    numbers: dict[str, Any] = {key: value(key, getattr(found, key)) for key in QUANTITIES}
    curves: dict[str, Any] = {
        key: _curve(file, key, getattr(found.efficiency, key)) for key in CURVES
    }
    given = [key for key in OPTIONAL if getattr(found.efficiency, key) is not None]
    optional = {key: _curve(file, key, getattr(found.efficiency, key)) for key in given}
    sources |= {key: curve.source for key, curve in (curves | optional).items()}
    fixed_s = {key: value(f"fixed_s.{key}", getattr(found.fixed_s, key)) for key in FIXED}
    peak_flops, expanded = (
        {
            key: value(f"{section}.{key}", entry)
            for key in FORMATS
            if (entry := getattr(getattr(found, section), key)) is not None
        }
        for section in ("peak_flops", "expanded_formats")
    )
    corun = found.corun
    return HardwareSpec(
        name=found.name or path.stem,
        **numbers,
        **curves,
        fixed_s=fixed_s,
        flops_format=found.flops_format,
        peak_flops=peak_flops,
        expanded_formats=expanded,
        optional=optional,
        corun=corun and CoRunPoints(tuple(corun.attention), tuple(corun.network), corun.source),
        sources=sources,
    )


def _raw(name: str, where: str) -> dict[str, Any]:
    if name not in known_hardware():
        raise unknown_name(where, name, known_hardware())
    path = SPECS / f"{name}.yaml"
    data: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    return _on_base(data, where) if "base" in data else data


def _on_base(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``data`` merged over the spec that its ``base`` names; sections merge one level down.

    Inherited entries name the base in their source; the name of the base is not inherited.
    ``where`` locates ``base`` in error messages.
    """
    name = str(data["base"])
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
        elif key != "base":
            merged[key] = value
    return merged


def _curve(file: YamlFile, key: str, entry: Any) -> EfficiencyCurve:
    """Return the curve of a checked entry of ``efficiency``."""
    where = file.where_field("efficiency", key)
    known = CURVES[key] if key in CURVES else OPTIONAL[key]
    axes = {name: getattr(entry, name) for name in known if getattr(entry, name) is not None}
    if not axes:
        raise InputError(where, "no sizes", f"the sizes of one or more of: {', '.join(known)}")
    try:
        return EfficiencyCurve.build(where, axes, entry.values, entry.source)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError.saying(where, f"expected lists of numbers; {error}") from None
