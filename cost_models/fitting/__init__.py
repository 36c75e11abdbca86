"""Fit curves and hardware files to measured operators, co-runs and all-reduces."""

from bssim.cost_models.fitting.corun_fit import CoRun, CoRunFit, fit_corun
from bssim.cost_models.fitting.curve_fit import GRIDS, as_yaml, fit_curve
from bssim.cost_models.fitting.link_fit import LinkFit, fit_link
from bssim.cost_models.fitting.operator_time import OperatorTime, operator_time
from bssim.cost_models.fitting.profile import Profile, build_profile, write_hardware

__all__ = [
    "GRIDS",
    "CoRun",
    "CoRunFit",
    "LinkFit",
    "OperatorTime",
    "Profile",
    "as_yaml",
    "build_profile",
    "fit_corun",
    "fit_curve",
    "fit_link",
    "operator_time",
    "write_hardware",
]
