"""Where an LLMSpec comes from: a shipped YAML by name, a YAML file, or a Hugging Face config."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from bssim.cost_models.llm.precision import Dtype, Precision
from bssim.cost_models.llm.spec import LLMSpec
from bssim.errors import InputError, unknown_name

SPECS = Path(__file__).parents[1] / "specs" / "llm"

_DTYPES: dict[str, Dtype] = {
    "float32": "float32",
    "float": "float32",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "half": "float16",
}


def known_llms() -> list[str]:
    """Return the names of the shipped specs."""
    return sorted(path.stem for path in SPECS.glob("*.yaml"))


def load_llm(name_or_path: str | Path) -> LLMSpec:
    """Return a spec by shipped name, from a YAML file, a ``config.json`` or a model folder.

    Raises InputError for unknown names, unreadable files, missing fields, architectures that are
    not known, and attention that is not full in every layer (sliding windows, hybrids).
    """
    path = Path(name_or_path)
    if not str(name_or_path):  # Path would take it for this folder
        raise unknown_name("model", "", known_llms())
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json":
        return _from_hf_config(path, _parse(path, json.loads))
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(path, _parse(path, yaml.safe_load))
    shipped = SPECS / f"{name_or_path}.yaml"
    if not shipped.is_file():
        raise unknown_name("model", str(name_or_path), known_llms())
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
    known = {f.name: f for f in fields(LLMSpec)}
    values: dict[str, Any] = {"name": path.stem}
    for key, value in data.items():
        if key not in known:
            raise unknown_name(f"{path}", key, known)
        kind = known[key].type
        if key == "notes":
            if not isinstance(value, list):
                raise InputError(f"{path}: notes", repr(value), "a list of texts")
            value = tuple(str(note) for note in value)
        elif kind is int and (isinstance(value, bool) or not isinstance(value, int)):
            raise InputError(f"{path}: {key}", repr(value), "a whole number")
        elif kind is bool and not isinstance(value, bool):
            raise InputError(f"{path}: {key}", repr(value), "true or false")
        values[key] = value
    try:
        return LLMSpec(**values)
    except InputError as error:
        raise error.blamed_on(path) from None
    except TypeError as error:
        raise InputError.saying(path, str(error).split("__init__() ")[-1]) from None


class _Config:
    """A Hugging Face config that answers for every field it is asked for, or raises InputError."""

    def __init__(self, path: Path, data: Mapping[str, Any]) -> None:
        self.path = path
        self.data = data

    def number(self, *keys: str, default: int | None = None) -> int:
        """Return the first of ``keys`` that is set, as a whole number."""
        for key in keys:
            value = self.data.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"{self.path}: {key}", repr(value), "a whole number")
            return value
        if default is not None:
            return default
        raise InputError(self.path, f"no {keys[0]!r}", f"it in a {self.kind} config")

    def flag(self, key: str, default: bool) -> bool:
        """Return a boolean field."""
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise InputError(f"{self.path}: {key}", repr(value), "true or false")
        return value

    @property
    def kind(self) -> str:
        """The architecture's ``model_type``."""
        return str(self.data.get("model_type"))


def _llama_like(config: _Config) -> dict[str, Any]:
    """Return the fields that most decoder-only families share."""
    heads = config.number("num_attention_heads")
    hidden = config.number("hidden_size")
    return {
        "hidden_size": hidden,
        "num_layers": config.number("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_kv_heads": config.number("num_key_value_heads", default=heads),
        "head_dim": config.number("head_dim", default=max(hidden // heads, 1)),
        "intermediate_size": config.number("intermediate_size"),
        "vocab_size": config.number("vocab_size"),
        "tie_word_embeddings": config.flag("tie_word_embeddings", False),
        "attention_bias": config.flag("attention_bias", False),
    }


def _qwen2(config: _Config) -> dict[str, Any]:
    return {**_llama_like(config), "attention_bias": True}


def _qwen3(config: _Config) -> dict[str, Any]:
    return {**_llama_like(config), "qk_norm": True}


def _gemma(config: _Config) -> dict[str, Any]:
    return {
        **_llama_like(config),
        "tie_word_embeddings": config.flag("tie_word_embeddings", True),
    }


def _moe(config: _Config, experts: str) -> dict[str, Any]:
    width = config.number("moe_intermediate_size", "intermediate_size")
    return {
        "num_experts": config.number(experts),
        "experts_per_token": config.number("num_experts_per_tok"),
        "moe_intermediate_size": width,
    }


def _mixtral(config: _Config) -> dict[str, Any]:
    return {**_llama_like(config), **_moe(config, "num_local_experts")}


def _qwen_moe(config: _Config) -> dict[str, Any]:
    if config.number("decoder_sparse_step", default=1) != 1 or config.data.get("mlp_only_layers"):
        raise InputError(
            config.path,
            "decoder_sparse_step or mlp_only_layers that mix dense layers in",
            "experts in every layer, the only form that is modelled",
        )
    base = _qwen2(config) if config.kind == "qwen2_moe" else _qwen3(config)
    return {
        **base,
        **_moe(config, "num_experts"),
        "shared_expert_intermediate_size": config.number(
            "shared_expert_intermediate_size", default=0
        ),
    }


def _deepseek(config: _Config) -> dict[str, Any]:
    shared = config.number("n_shared_experts", default=0)
    values = {
        **_llama_like(config),
        "q_lora_rank": config.number("q_lora_rank", default=0),
        "kv_lora_rank": config.number("kv_lora_rank"),
        "qk_nope_head_dim": config.number("qk_nope_head_dim"),
        "qk_rope_head_dim": config.number("qk_rope_head_dim"),
        "v_head_dim": config.number("v_head_dim"),
    }
    if config.number("n_routed_experts", default=0):
        values |= _moe(config, "n_routed_experts")
        values["shared_expert_intermediate_size"] = shared * values["moe_intermediate_size"]
        values["num_dense_layers"] = config.number("first_k_dense_replace", default=0)
    return values


def _gpt2(config: _Config) -> dict[str, Any]:
    heads, hidden = config.number("n_head"), config.number("n_embd")
    return {
        "hidden_size": hidden,
        "num_layers": config.number("n_layer"),
        "num_attention_heads": heads,
        "num_kv_heads": 1 if config.flag("multi_query", False) else heads,
        "head_dim": max(hidden // heads, 1),
        "intermediate_size": config.number("n_inner", default=4 * hidden),
        "vocab_size": config.number("vocab_size"),
        "tie_word_embeddings": config.flag("tie_word_embeddings", True),
        "attention_bias": True,
        "gated_mlp": False,
        "position_embeddings": config.number("n_positions"),
    }


def _opt(config: _Config) -> dict[str, Any]:
    heads, hidden = config.number("num_attention_heads"), config.number("hidden_size")
    if config.number("word_embed_proj_dim", default=hidden) != hidden:
        raise InputError(
            f"{config.path}: word_embed_proj_dim",
            config.data["word_embed_proj_dim"],
            f"hidden_size ({hidden}), the only form that is modelled",
        )
    return {
        "hidden_size": hidden,
        "num_layers": config.number("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_kv_heads": heads,
        "head_dim": max(hidden // heads, 1),
        "intermediate_size": config.number("ffn_dim"),
        "vocab_size": config.number("vocab_size"),
        "tie_word_embeddings": config.flag("tie_word_embeddings", True),
        "attention_bias": True,
        "gated_mlp": False,
        "position_embeddings": config.number("max_position_embeddings") + 2,
    }


_FAMILIES: dict[str, Callable[[_Config], dict[str, Any]]] = {
    "llama": _llama_like,
    "mistral": _llama_like,
    "phi3": _llama_like,
    "granite": _llama_like,
    "olmo": _llama_like,
    "gemma": _gemma,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "mixtral": _mixtral,
    "qwen2_moe": _qwen_moe,
    "qwen3_moe": _qwen_moe,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt2,
    "opt": _opt,
}
"""``model_type`` -> how its fields are named; only architectures whose layers are all modelled."""


def _check_full_attention(config: _Config) -> None:
    """Refuse sliding windows and hybrids: their KV cache does not grow by a constant per token."""
    layer_types = config.data.get("layer_types") or []
    other = sorted({str(kind) for kind in layer_types} - {"full_attention"})
    if other:
        raise InputError(
            f"{config.path}: layer_types",
            ", ".join(other),
            "full_attention in every layer: sliding-window and hybrid attention are not modelled",
        )
    window = config.number("sliding_window", default=0)
    longest = config.number("max_position_embeddings", default=0)
    if config.flag("use_sliding_window", True) and 0 < window < longest:
        raise InputError(
            f"{config.path}: sliding_window",
            window,
            (
                f"none, or at least max_position_embeddings ({longest}): sliding-window "
                "attention is not modelled"
            ),
        )


def _from_hf_config(path: Path, data: dict[str, Any]) -> LLMSpec:
    config = _Config(path, data)
    if config.kind not in _FAMILIES:
        raise unknown_name(f"{path}: model_type", data.get("model_type"), _FAMILIES)
    _check_full_attention(config)
    dtype = str(data.get("torch_dtype") or data.get("dtype") or "bfloat16").removeprefix("torch.")
    if dtype not in _DTYPES:
        raise unknown_name(f"{path}: torch_dtype", dtype, _DTYPES)
    notes = []
    if data.get("quantization_config"):
        method = data["quantization_config"].get("quant_method", "unknown")
        notes.append(f"weights are quantised ({method}); they are priced in {dtype}")
    if data.get("num_nextn_predict_layers"):
        notes.append("multi-token prediction layers are left out")
    name = str(data.get("_name_or_path") or path.resolve().parent.name)
    shapes = _FAMILIES[config.kind](config)
    try:
        return LLMSpec(
            name=name,
            **shapes,
            precision=Precision(_DTYPES[dtype]),
            source=str(path),
            notes=tuple(notes),
        )
    except InputError as error:
        raise error.blamed_on(path) from None
