"""Load an LLMSpec from a shipped YAML, a YAML file, or a Hugging Face config."""

import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml

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

FAMILIES = {**DENSE, **SPARSE}
"""``model_type`` -> function that reads its config."""
SPECS = Path(__file__).parents[1] / "specs" / "llm"


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
        return _from_hf_config(path, _parse(path, json.loads))
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(path, _parse(path, yaml.safe_load))
    if str(name_or_path) not in known_llms():
        raise unknown_name("model", str(name_or_path), known_llms())
    shipped = SPECS / f"{name_or_path}.yaml"
    return _from_yaml(shipped, _parse(shipped, yaml.safe_load))


def _parse(path: Path, parse: Callable[[str], object]) -> dict[str, Any]:
    try:
        data = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.saying(
            path,
            str(error.strerror),
            f"a model YAML, a Hugging Face config.json, or one of: {', '.join(known_llms())}",
        ) from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError.saying(path, f"expected {path.suffix[1:].upper()}; {error}") from None
    if not isinstance(data, dict):
        raise InputError(path, type(data).__name__, "a mapping of fields")
    return data


def _from_yaml(path: Path, data: dict[str, Any]) -> LLMSpec:
    known = {f.name: f for f in fields(LLMSpec) if f.name != "precision"}
    values: dict[str, Any] = {"name": path.stem}
    precision = {key: data.pop(key, None) for key in ("dtype", "quantization", "kv_cache_dtype")}
    for key, value in data.items():
        if key not in known:
            raise unknown_name(f"{path}", key, [*known, *precision])
        kind = known[key].type
        if key == "notes":
            if not isinstance(value, list):
                raise InputError(f"{path}: notes", repr(value), "a list of texts")
            value = tuple(str(note) for note in value)
        elif key == "attention_layers":
            value = _yaml_groups(path, value)
        elif kind is int and (isinstance(value, bool) or not isinstance(value, int)):
            raise InputError(f"{path}: {key}", repr(value), "a whole number")
        elif kind is bool and not isinstance(value, bool):
            raise InputError(f"{path}: {key}", repr(value), "true or false")
        values[key] = value
    try:
        return with_precision(LLMSpec(**values), **precision)
    except InputError as error:
        raise error.blamed_on(path) from None
    except TypeError as error:
        raise InputError.saying(path, str(error).split("__init__() ")[-1]) from None


def _yaml_groups(path: Path, value: Any) -> tuple[AttentionGroup, ...]:
    """Return the attention groups in a YAML file, which lists the fields of AttentionGroup."""
    try:
        return tuple(AttentionGroup(**entry) for entry in value)
    except TypeError as error:
        raise InputError.saying(
            f"{path}: attention_layers", str(error).split("__init__() ")[-1], "a list of groups"
        ) from None


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
