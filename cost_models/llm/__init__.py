"""Language models: their shapes and precision, and how to load a spec."""

from bssim.cost_models.llm.attention import AttentionGroup, Kind
from bssim.cost_models.llm.load import known_llms, load_llm
from bssim.cost_models.llm.precision import BFLOAT16, LINEARS, Dtype, Precision
from bssim.cost_models.llm.quantization import with_precision
from bssim.cost_models.llm.shard import Shard
from bssim.cost_models.llm.spec import LLMSpec

__all__ = [
    "BFLOAT16",
    "LINEARS",
    "AttentionGroup",
    "Dtype",
    "Kind",
    "LLMSpec",
    "Precision",
    "Shard",
    "known_llms",
    "load_llm",
    "with_precision",
]
