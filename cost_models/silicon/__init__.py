"""The silicon cost model, the measured operator tables that it reads, and their curves."""

from bssim.cost_models.silicon.measured_curves import measured_hardware
from bssim.cost_models.silicon.model import SiliconCostModel
from bssim.cost_models.silicon.tables import (
    SYSTEMS,
    OperatorTables,
    has_tables,
    load_tables,
    load_trtllm_tables,
)

__all__ = [
    "SYSTEMS",
    "OperatorTables",
    "SiliconCostModel",
    "has_tables",
    "load_tables",
    "load_trtllm_tables",
    "measured_hardware",
]
