"""Batch files: compare orders, write the best one, run it, put results back in order.

One function per command: `compare`, `plan`, `run` and `restore`.
"""

from bssim.experiments.batch.assumptions import Assumptions
from bssim.experiments.batch.compare import (
    DEFAULT_SCHEDULERS,
    Pool,
    compare,
    compare_pool,
    open_pool,
)
from bssim.experiments.batch.comparison import AUTO, OWN, Comparison, OrderResult
from bssim.experiments.batch.lengths import from_caps
from bssim.experiments.batch.plan import WrittenPlan, plan, write_plan
from bssim.experiments.batch.restore import Restored, restore
from bssim.experiments.batch.run import run
from bssim.experiments.batch.run_report import RunError, RunReport, RunStatus
from bssim.experiments.batch.serving import (
    DEFAULT_COST_MODEL,
    DEFAULT_ENGINE,
    DEFAULT_HARDWARE,
    DEFAULT_MODEL,
    Serving,
)
from bssim.experiments.batch.table import assumption_lines, comparison_table
from bssim.experiments.batch.writing import STDOUT, part_names

__all__ = [
    "AUTO",
    "DEFAULT_COST_MODEL",
    "DEFAULT_ENGINE",
    "DEFAULT_HARDWARE",
    "DEFAULT_MODEL",
    "DEFAULT_SCHEDULERS",
    "OWN",
    "STDOUT",
    "Assumptions",
    "Comparison",
    "OrderResult",
    "Pool",
    "Restored",
    "RunError",
    "RunReport",
    "RunStatus",
    "Serving",
    "WrittenPlan",
    "assumption_lines",
    "compare",
    "compare_pool",
    "comparison_table",
    "from_caps",
    "open_pool",
    "part_names",
    "plan",
    "restore",
    "run",
    "write_plan",
]
