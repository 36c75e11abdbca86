"""The model YAML file as a schema: the fields of `LLMSpec`, and vLLM's options of precision.

A ``config.json`` has a reader of its own (`hf_config.py`): it belongs to other software, its keys
differ by family, and unknown ones are normal, so one schema could neither check nor explain it.
"""

from dataclasses import MISSING, fields
from typing import Any

from pydantic import create_model

from bssim.cost_models.llm.attention import AttentionGroup
from bssim.cost_models.llm.spec import LLMSpec
from bssim.schema import Written


def _keys(kind: type[Any], **other: Any) -> dict[str, Any]:
    """Return the keys of a dataclass for `create_model`; ``other`` keys replace its own."""
    own = {
        f.name: (f.type, ... if f.default is MISSING else f.default)
        for f in fields(kind)
        if f.name != "precision"
    }
    return own | other


_Group = create_model("Group", __base__=Written, **_keys(AttentionGroup))

ModelFile = create_model(
    "ModelFile",
    __base__=Written,
    **_keys(
        LLMSpec,
        name=(str | None, None),
        attention_layers=(list[_Group], []),  # type: ignore[valid-type]  # made at run time
        notes=(list[str], []),
        dtype=(str | None, None),
        quantization=(str | None, None),
        kv_cache_dtype=(str | None, None),
    ),
)
