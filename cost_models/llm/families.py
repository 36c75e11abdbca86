"""How each model family names its sizes in ``config.json``, and what its layers consist of.

Each function takes a config and returns fields of `LLMSpec`. Facts that a config does not state
come from the implementation in Hugging Face transformers; tests check the parameter counts. Only
families whose layers bssim models completely are here; all others are refused by name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bssim.cost_models.llm.attention import Kind
from bssim.cost_models.llm.hf_config import HfConfig, attention_layers
from bssim.errors import InputError

Fields = dict[str, Any]
EVERY_OTHER = 2
GEMMA3_PATTERN = 6
COHERE2_PATTERN = 4


def shape_of(config: HfConfig) -> Fields:
    """Return the sizes that have the same names in most decoder-only families."""
    heads = config.number("num_attention_heads")
    hidden = config.number("hidden_size")
    return {
        "hidden_size": hidden,
        "num_layers": config.number("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_kv_heads": config.number("num_key_value_heads", default=heads),
        "head_dim": config.number("head_dim", default=max(hidden // max(heads, 1), 1)),
        "intermediate_size": config.number("intermediate_size"),
        "vocab_size": config.number("vocab_size"),
        "tie_word_embeddings": config.flag("tie_word_embeddings", False),
    }


def windows_of(
    config: HfConfig,
    shape: Fields,
    *,
    default: Sequence[str] | None = None,
    windows: Mapping[Kind, int] | None = None,
    **kinds: bool,
) -> Fields:
    """Return ``attention_layers`` if any layer has a window, sinks or soft-capping."""
    if windows is None:
        windows = {"sliding": config.window()}
    groups = attention_layers(
        config.layer_kinds(default),
        windows,
        num_heads=shape["num_attention_heads"],
        num_kv_heads=shape["num_kv_heads"],
        head_dim=shape["head_dim"],
        **kinds,
    )
    plain = len(groups) == 1 and groups[0].kind == "full" and not any(kinds.values())
    return {} if plain else {"attention_layers": groups}


def alternating(config: HfConfig, period: int) -> list[str]:
    """Return sliding attention for every layer, except full attention for every ``period``-th."""
    return [
        "full_attention" if (i + 1) % period == 0 else "sliding_attention"
        for i in range(config.number("num_hidden_layers"))
    ]


def everywhere(config: HfConfig) -> list[str]:
    """Return sliding attention for every layer."""
    return ["sliding_attention"] * config.number("num_hidden_layers")


# -- dense families --------------------------------------------------------------------------


def _llama(config: HfConfig) -> Fields:
    shape = shape_of(config)
    bias = config.flag("attention_bias", False)
    return {
        **shape,
        **windows_of(config, shape),
        "attention_bias": bias,
        "attention_output_bias": bias,
        "mlp_bias": config.flag("mlp_bias", False),
    }


def _mistral(config: HfConfig) -> Fields:
    """Mistral and Phi-3: ``sliding_window`` applies to every layer."""
    shape = shape_of(config)
    return {**shape, **windows_of(config, shape, default=everywhere(config))}


def _qwen_windows(config: HfConfig, shape: Fields) -> Fields:
    """Qwen: with ``use_sliding_window``, layers from ``max_window_layers`` on slide."""
    if not config.flag("use_sliding_window", False):
        return windows_of(config, shape, windows={})
    first = config.number("max_window_layers", default=28)
    kinds = [
        "sliding_attention" if i >= first else "full_attention" for i in range(shape["num_layers"])
    ]
    return windows_of(config, shape, default=kinds)


def qwen2(config: HfConfig) -> Fields:
    """Return the fields of Qwen 2 and 2.5: Q, K and V have biases."""
    shape = shape_of(config)
    return {**shape, **_qwen_windows(config, shape), "attention_bias": True}


def qwen3(config: HfConfig) -> Fields:
    """Return the fields of Qwen 3: Q and K are normalised per head."""
    shape = shape_of(config)
    return {
        **shape,
        **_qwen_windows(config, shape),
        "attention_bias": config.flag("attention_bias", False),
        "qk_norm": True,
    }


def _smollm3(config: HfConfig) -> Fields:
    shape = shape_of(config)
    if config.flag("use_sliding_window", False):
        raise InputError(f"{config.path}: use_sliding_window", "true", "false in a smollm3 config")
    return {**shape, "tie_word_embeddings": config.flag("tie_word_embeddings", True)}


def _gemma(config: HfConfig) -> Fields:
    shape = shape_of(config)
    return {**shape, "tie_word_embeddings": config.flag("tie_word_embeddings", True)}


def _gemma2(config: HfConfig) -> Fields:
    """A norm before and after attention and MLP; every other layer slides; scores are capped."""
    shape = _gemma(config)
    kinds = alternating(config, EVERY_OTHER)
    capped = config.has("attn_logit_softcapping")
    return {
        **shape,
        **windows_of(config, shape, default=kinds, softcap=capped),
        "norms_per_layer": 4,
        "logit_softcap": config.has("final_logit_softcapping"),
    }


def _gemma3(config: HfConfig) -> Fields:
    """Five sliding layers per full one, and norms of Q and K instead of soft-capping."""
    shape = _gemma(config)
    pattern = config.divisor("sliding_window_pattern", default=GEMMA3_PATTERN)
    return {
        **shape,
        **windows_of(config, shape, default=alternating(config, pattern)),
        "norms_per_layer": 4,
        "qk_norm": True,
    }


def _glm(config: HfConfig) -> Fields:
    return {**shape_of(config), "attention_bias": config.flag("attention_bias", True)}


def _glm4(config: HfConfig) -> Fields:
    return {**_glm(config), "norms_per_layer": 4}


def _chatglm(config: HfConfig) -> Fields:
    heads, hidden = config.number("num_attention_heads"), config.number("hidden_size")
    grouped = config.flag("multi_query_attention", False)
    return {
        "hidden_size": hidden,
        "num_layers": config.number("num_layers"),
        "num_attention_heads": heads,
        "num_kv_heads": config.number("multi_query_group_num") if grouped else heads,
        "head_dim": config.number("kv_channels", default=max(hidden // max(heads, 1), 1)),
        "intermediate_size": config.number("ffn_hidden_size"),
        "vocab_size": config.number("padded_vocab_size"),
        "tie_word_embeddings": config.flag("tie_word_embeddings", False),
        "attention_bias": config.flag("add_qkv_bias", False),
    }


def _olmo2(config: HfConfig) -> Fields:
    return {**_llama(config), "qk_norm_all_heads": True}


def _olmo3(config: HfConfig) -> Fields:
    shape = shape_of(config)
    kinds = alternating(config, COHERE2_PATTERN)
    return {**shape, **windows_of(config, shape, default=kinds), "qk_norm_all_heads": True}


def _exaone4(config: HfConfig) -> Fields:
    shape = shape_of(config)
    windows: dict[Kind, int] = {"sliding": config.window()}
    if windows["sliding"] and not config.has("layer_types"):
        raise InputError(
            f"{config.path}: layer_types", "none with sliding_window", "the kind of every layer"
        )
    return {**shape, **windows_of(config, shape, windows=windows), "qk_norm": True}


def _cohere(config: HfConfig) -> Fields:
    """Attention and MLP run in parallel after one norm."""
    return {
        **_gemma(config),
        "attention_bias": config.flag("attention_bias", False),
        "attention_output_bias": config.flag("attention_bias", False),
        "norms_per_layer": 1,
        "qk_norm_all_heads": config.flag("use_qk_norm", False),
    }


def _cohere2(config: HfConfig) -> Fields:
    """Sliding layers see ``sliding_window`` tokens in addition to the token itself."""
    shape = _cohere(config)
    pattern = config.divisor("sliding_window_pattern", default=COHERE2_PATTERN)
    window = config.window()
    windows: dict[Kind, int] = {"sliding": window + 1 if window else 0}
    kinds = alternating(config, pattern)
    return {**shape, **windows_of(config, shape, default=kinds, windows=windows)}


def _starcoder2(config: HfConfig) -> Fields:
    shape = shape_of(config)
    bias = config.flag("use_bias", True)
    return {
        **shape,
        **windows_of(config, shape, default=everywhere(config)),
        "tie_word_embeddings": config.flag("tie_word_embeddings", True),
        "gated_mlp": False,
        "attention_bias": bias,
        "attention_output_bias": bias,
        "mlp_bias": bias,
        "norm_bias": True,
    }


def _gpt_neox(config: HfConfig) -> Fields:
    bias = config.flag("attention_bias", True)
    return {
        **shape_of(config),
        "gated_mlp": False,
        "attention_bias": bias,
        "attention_output_bias": bias,
        "mlp_bias": True,
        "norm_bias": True,
    }


def _phi(config: HfConfig) -> Fields:
    return {
        **shape_of(config),
        "gated_mlp": False,
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
        "norms_per_layer": 1,
        "norm_bias": True,
    }


def _stablelm(config: HfConfig) -> Fields:
    return {
        **shape_of(config),
        "attention_bias": config.flag("use_qkv_bias", False),
        "norms_per_layer": 1 if config.flag("use_parallel_residual", False) else 2,
        "norm_bias": True,
    }


def _falcon(config: HfConfig) -> Fields:
    heads, hidden = config.divisor("num_attention_heads"), config.number("hidden_size")
    new = config.flag("new_decoder_architecture", False)
    kv_heads = 1 if config.flag("multi_query", True) else heads
    parallel = config.flag("parallel_attn", True)
    norms = config.number("num_ln_in_parallel_attn", default=2 if new or not parallel else 1)
    bias = config.flag("bias", False)
    return {
        "hidden_size": hidden,
        "num_layers": config.number("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_kv_heads": config.number("num_kv_heads", default=heads) if new else kv_heads,
        "head_dim": max(hidden // heads, 1),
        "intermediate_size": config.number("ffn_hidden_size", default=4 * hidden),
        "vocab_size": config.number("vocab_size"),
        "tie_word_embeddings": config.flag("tie_word_embeddings", True),
        "gated_mlp": False,
        "attention_bias": bias,
        "attention_output_bias": bias,
        "mlp_bias": bias,
        "norms_per_layer": norms,
        "norm_bias": True,
    }


def _nemotron(config: HfConfig) -> Fields:
    return {**_llama(config), "gated_mlp": False, "norm_bias": True}


def _seed_oss(config: HfConfig) -> Fields:
    return {
        **_llama(config),
        "attention_bias": config.flag("attention_bias", True),
        "attention_output_bias": config.flag("attention_out_bias", False),
    }


def _hunyuan(config: HfConfig) -> Fields:
    return {**_llama(config), "qk_norm": config.flag("use_qk_norm", True)}


def _ernie(config: HfConfig) -> Fields:
    bias = config.flag("use_bias", False)
    return {
        **shape_of(config),
        "tie_word_embeddings": config.flag("tie_word_embeddings", True),
        "attention_bias": bias,
        "attention_output_bias": bias,
        "mlp_bias": bias,
    }


def _internlm2(config: HfConfig) -> Fields:
    bias = config.flag("bias", False)
    return {**shape_of(config), "attention_bias": bias, "attention_output_bias": bias}


def _gpt2(config: HfConfig) -> Fields:
    heads, hidden = config.divisor("n_head"), config.number("n_embd")
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
        "attention_output_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "gated_mlp": False,
        "position_embeddings": config.number("n_positions"),
    }


def _opt(config: HfConfig) -> Fields:
    heads, hidden = config.divisor("num_attention_heads"), config.number("hidden_size")
    if config.number("word_embed_proj_dim", default=hidden) != hidden:
        raise InputError(
            f"{config.path}: word_embed_proj_dim",
            f"{config.data['word_embed_proj_dim']}",
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
        "attention_output_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "gated_mlp": False,
        "position_embeddings": config.number("max_position_embeddings") + 2,
    }


DENSE: dict[str, Callable[[HfConfig], Fields]] = {
    "baichuan": shape_of,
    "chatglm": _chatglm,
    "cohere": _cohere,
    "cohere2": _cohere2,
    "ernie4_5": _ernie,
    "exaone4": _exaone4,
    "falcon": _falcon,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "glm": _glm,
    "glm4": _glm4,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt2,
    "gpt_neox": _gpt_neox,
    "granite": _llama,
    "hunyuan_v1_dense": _hunyuan,
    "internlm2": _internlm2,
    "llama": _llama,
    "minicpm": _gemma,
    "mistral": _mistral,
    "nemotron": _nemotron,
    "olmo": _llama,
    "olmo2": _olmo2,
    "olmo3": _olmo3,
    "opt": _opt,
    "phi": _phi,
    "phi3": _mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "seed_oss": _seed_oss,
    "smollm3": _smollm3,
    "stablelm": _stablelm,
    "starcoder2": _starcoder2,
}
"""``model_type`` -> function that returns its fields; families without experts."""
