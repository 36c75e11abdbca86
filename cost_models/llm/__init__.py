"""Language models: their shapes and precision, and how to load a spec.

To add a model, write `cost_models/specs/llm/NAME.yaml`. To read the `config.json` of another
family, add a function and a name to `families.py` or `moe_families.py`.
"""

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
