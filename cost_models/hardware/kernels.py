"""The curves of other engines' kernels on a shipped device.

A device's own file holds the curves of vLLM's kernels. ``specs/kernels/NAME/DEVICE.yaml`` holds the
curves that differ with the kernels of engine NAME.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import yaml

from bssim.cost_models.hardware.load import SPECS, known_hardware, load_hardware
from bssim.cost_models.hardware.spec import CURVES, OPTIONAL, HardwareSpec

KERNELS = SPECS.parent / "kernels"


def known_kernels() -> list[str]:
    """Return the kernel sets that an engine file may name."""
    return ["vllm", *sorted(path.name for path in KERNELS.iterdir() if path.is_dir())]


def with_kernels(hardware: HardwareSpec, kernels: str) -> HardwareSpec:
    """Return a shipped device with the curves of an engine's kernels, by `known_kernels`.

    A curve that you changed stays yours: only those that are still the device's own, or that it
    lacks, are taken.
    A device without a file takes that of the device that its spec is based on; where none has one,
    and for devices that are not shipped, the spec comes back unchanged. The source of a curve says
    whose kernels it describes.
    """
    if kernels == "vllm":
        return hardware
    own, others = _curves_of(hardware.name, kernels)
    replaced = {
        name: curve
        for name, curve in others.items()
        if _sources(hardware).get(name) == own.get(name)
    }
    if not replaced:
        return hardware
    core = {name: curve for name, curve in replaced.items() if name in CURVES}
    extra = {name: curve for name, curve in replaced.items() if name in OPTIONAL}
    sources = {name: curve.source for name, curve in replaced.items()}
    return replace(
        hardware,
        optional={**hardware.optional, **extra},
        sources={**hardware.sources, **sources},
        **core,
    )


def _sources(hardware: HardwareSpec) -> dict[str, str]:
    """Return the source of each curve that the device has."""
    core = {name: getattr(hardware, name).source for name in CURVES}
    return core | {name: curve.source for name, curve in hardware.optional.items()}


@cache
def _curves_of(device: str, kernels: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the sources of a shipped device's own curves, and the curves of the kernel set."""
    base: str | None = device if device in known_hardware() else None
    while base is not None:
        path = KERNELS / kernels / f"{base}.yaml"
        if path.is_file():
            own, found = load_hardware(device), load_hardware(path)
            named = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)["efficiency"]
            return _sources(own), {name: found.curve(name) for name in named}
        text = (SPECS / f"{base}.yaml").read_text(encoding="utf-8")
        base = yaml.load(text, Loader=_LOADER).get("base")
    return {}, {}


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
