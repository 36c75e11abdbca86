"""Calibration: measure this machine, or fit a cost model to replays."""

from bssim.experiments.calibration.machine import MachineOptions, calibrate_machine
from bssim.experiments.calibration.replay import (
    HeldOutError,
    fit_replays,
    held_out_error,
    predicted_errors,
)

__all__ = [
    "HeldOutError",
    "MachineOptions",
    "calibrate_machine",
    "fit_replays",
    "held_out_error",
    "predicted_errors",
]
