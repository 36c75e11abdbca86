"""What the operators of a step cost: GEMMs, experts, attention, elementwise, collectives.

To add an operator, add a class to this folder; `cost_models/roofline.py` puts them together.
"""

from bssim.cost_models.operators.attention import AttentionCost
from bssim.cost_models.operators.collectives import Collectives
from bssim.cost_models.operators.elementwise import Elementwise, sampling_kernels, token_kernels
from bssim.cost_models.operators.experts import SKEW_SOURCE, ExpertMlp, expert_loads
from bssim.cost_models.operators.gemms import Gemm, dense_gemms, lm_head_gemm, mlp_gemms
from bssim.cost_models.operators.priced import OperatorSeconds, merged, scaled

__all__ = [
    "SKEW_SOURCE",
    "AttentionCost",
    "Collectives",
    "Elementwise",
    "ExpertMlp",
    "Gemm",
    "OperatorSeconds",
    "dense_gemms",
    "expert_loads",
    "lm_head_gemm",
    "merged",
    "mlp_gemms",
    "sampling_kernels",
    "scaled",
    "token_kernels",
]
