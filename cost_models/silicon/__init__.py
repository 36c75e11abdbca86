"""The silicon cost model, the measured operator tables that it reads, and their curves."""

from bssim.cost_models.silicon.measured_curves import (
    all_reduce_share,
    decode_share,
    elementwise_share,
    experts_share,
    gemm_share,
    measured_hardware,
    prefill_share,
)
from bssim.cost_models.silicon.model import SiliconCostModel
from bssim.cost_models.silicon.tables import (
    EXPERT_TABLES,
    GEMM_TABLES,
    PEAK_FORMATS,
    REDUCE_TABLES,
    SYSTEMS,
    OperatorTables,
    gemm_sizes,
    has_tables,
    load_tables,
    load_trtllm_tables,
)

__all__ = [
    "EXPERT_TABLES",
    "GEMM_TABLES",
    "PEAK_FORMATS",
    "REDUCE_TABLES",
    "SYSTEMS",
    "OperatorTables",
    "SiliconCostModel",
    "all_reduce_share",
    "decode_share",
    "elementwise_share",
    "experts_share",
    "gemm_share",
    "gemm_sizes",
    "has_tables",
    "load_tables",
    "load_trtllm_tables",
    "measured_hardware",
    "prefill_share",
]
