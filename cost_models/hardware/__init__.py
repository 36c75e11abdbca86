"""GPUs: peaks, efficiency curves, number formats, and how much KV cache their memory holds.

To add a GPU, write `cost_models/specs/hardware/NAME.yaml` with a source for every number, or let
`bssim calibrate` write it on the machine.
"""

from bssim.cost_models.hardware.curves import EfficiencyCurve
from bssim.cost_models.hardware.device_formats import as_run, peak_flops, precision_notes
from bssim.cost_models.hardware.kernels import known_kernels, with_kernels
from bssim.cost_models.hardware.kv_capacity import (
    Lengths,
    held_shares,
    kv_capacity_tokens,
    padded_layers,
    window_note,
)
from bssim.cost_models.hardware.load import SPECS, known_hardware, load_hardware
from bssim.cost_models.hardware.spec import CURVES, FIXED, QUANTITIES, CoRunPoints, HardwareSpec

__all__ = [
    "CURVES",
    "FIXED",
    "QUANTITIES",
    "SPECS",
    "CoRunPoints",
    "EfficiencyCurve",
    "HardwareSpec",
    "Lengths",
    "as_run",
    "held_shares",
    "known_hardware",
    "known_kernels",
    "kv_capacity_tokens",
    "load_hardware",
    "padded_layers",
    "peak_flops",
    "precision_notes",
    "window_note",
    "with_kernels",
]
