"""Load an LLMSpec from a shipped YAML, a YAML file, or a Hugging Face config."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from bssim.cost_models.llm.attention import AttentionGroup
from bssim.cost_models.llm.families import DENSE
from bssim.cost_models.llm.hf_config import HfConfig
from bssim.cost_models.llm.moe_families import SPARSE
from bssim.cost_models.llm.precision import Precision
from bssim.cost_models.llm.quantization import (
    FLOAT32_NOTE,
    kv_cache_dtype,
    method_of,
    plain_dtype,
    quantized,
    with_precision,
)
from bssim.cost_models.llm.spec import LLMSpec
from bssim.errors import InputError, unknown_name
from bssim.input_file import read_text
from bssim.yaml_file import read_yaml

FAMILIES = {**DENSE, **SPARSE}
"""``model_type`` -> function that reads its config."""
SPECS = Path(__file__).parents[1] / "specs" / "llm"
_EXPECTED = "a model YAML, a Hugging Face config.json, or one of: {}"


def known_llms() -> list[str]:
    """Return the names of the shipped specs."""
    return sorted(path.stem for path in SPECS.glob("*.yaml"))


def load_llm(
    name_or_path: str | Path,
    *,
    dtype: str | None = None,
    quantization: str | None = None,
    kv_cache_dtype: str | None = None,
) -> LLMSpec:
    """Return a spec by shipped name, from a YAML file, a ``config.json`` or a model folder.

    ``dtype``, ``quantization`` and ``kv_cache_dtype`` are the vLLM options of the same names. None
    or ``auto`` keeps the values of the model; ``quantization="none"`` means unquantised weights.

    Raises InputError for unknown names, unreadable files, missing fields, architectures with layers
    that bssim does not model (linear attention, state-space layers), and precisions that it cannot
    price.
    """
    llm = _load(name_or_path)
    llm = with_precision(llm, dtype=dtype, quantization=quantization, kv_cache_dtype=kv_cache_dtype)
    if dtype in (None, "auto") and llm.precision.dtype == "float32":
        llm = replace(llm, notes=(*llm.notes, FLOAT32_NOTE))
    return llm


def _load(name_or_path: str | Path) -> LLMSpec:
    path = Path(name_or_path)
    if not str(name_or_path):  # Path("") is the current folder
        raise unknown_name("model", "", known_llms())
    if os.path.isdir(path):  # False, not an error, for a name that is too long
        path = path / "config.json"
    if path.suffix == ".json":
        return _from_hf_config(path, _read_json(path))
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(path)
    if str(name_or_path) not in known_llms():
        raise unknown_name("model", str(name_or_path), known_llms())
    return _from_yaml(SPECS / f"{name_or_path}.yaml")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path, 64 << 20))
    except OSError as error:
        expected = _EXPECTED.format(", ".join(known_llms()))
        raise InputError.saying(path, str(error.strerror), expected) from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError.saying(path, f"expected JSON; {error}") from None
    if not isinstance(data, dict):
        raise InputError(path, type(data).__name__, "a mapping of fields")
    return data


def _from_yaml(path: Path) -> LLMSpec:
    # pydantic is imported only for a file
    from bssim.cost_models.llm.schema import ModelFile
    from bssim.schema import validated

    file = read_yaml(path, _EXPECTED.format(", ".join(known_llms())))
    found = validated(file, ModelFile).model_dump()
    precision = {key: found.pop(key) for key in ("dtype", "quantization", "kv_cache_dtype")}
    found["name"] = found["name"] or path.stem
    found["notes"] = tuple(found["notes"])
    try:
        groups = tuple(AttentionGroup(**entry) for entry in found["attention_layers"])
        return with_precision(LLMSpec(**found | {"attention_layers": groups}), **precision)
    except InputError as error:
        raise error.blamed_on(path) from None


def _text_part(path: Path, data: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the language model of a multimodal config, and a note about what is left out."""
    text = data.get("text_config")
    if not isinstance(text, dict) or "model_type" not in text:
        return data, ()
    outer = ("quantization_config", "torch_dtype", "dtype", "tie_word_embeddings")
    kept = {key: data[key] for key in outer if data.get(key) is not None}
    note = f"the language model of a {data.get('model_type')} config; other towers are left out"
    return {**kept, **text}, (note,)


def _from_hf_config(path: Path, data: dict[str, Any]) -> LLMSpec:
    own = path.resolve().parent.name if path.stem == "config" else path.stem
    name = str(data.get("_name_or_path") or own)
    data, notes = _text_part(path, data)
    config = HfConfig(path, data)
    if config.kind not in FAMILIES:
        raise unknown_name(f"{path}: model_type", data.get("model_type"), FAMILIES)
    dtype = plain_dtype(
        str(data.get("torch_dtype") or data.get("dtype") or "bfloat16"), f"{path}: torch_dtype"
    )
    if data.get("num_nextn_predict_layers"):
        notes = (*notes, "multi-token prediction layers are left out")
    try:
        llm = LLMSpec(
            name=name,
            **FAMILIES[config.kind](config),
            max_position_embeddings=config.longest_context,
            precision=Precision(dtype),
            source=str(path),
            notes=notes,
        )
    except InputError as error:
        raise (error if error.where.startswith(str(path)) else error.blamed_on(path)) from None
    scheme = data.get("quantization_config") or data.get("compression_config")
    if not scheme:
        return llm
    where = f"{path}: quantization_config"
    if not isinstance(scheme, dict):
        raise InputError(where, repr(scheme), "a mapping")
    method = method_of(scheme, where)
    precision = replace(llm.precision, kv_cache_dtype=kv_cache_dtype(scheme, where))
    llm = replace(llm, precision=precision)
    return quantized(llm, method, scheme, where)
