"""Validation: simulate and replay the same schedules, and compare.

`run_batch.py`, which compares `bssim run` with vLLM's own command, is a command of its own:
`python -m bssim.experiments.validation.run_batch`.
"""

from bssim.experiments.validation.comparison import Comparison
from bssim.experiments.validation.config import load_validation
from bssim.experiments.validation.report import write_report
from bssim.experiments.validation.validate import Validation, validate

__all__ = [
    "Comparison",
    "Validation",
    "load_validation",
    "validate",
    "write_report",
]
