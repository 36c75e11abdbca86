"""One HTML file that shows the results of a sweep, to read and to share offline."""

from bssim.experiments.report.page import require_packages, write_report

__all__ = [
    "require_packages",
    "write_report",
]
