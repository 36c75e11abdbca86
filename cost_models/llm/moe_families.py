"""Families with experts or a latent KV cache; functions are as in `families`."""

from collections.abc import Callable

from bssim.cost_models.llm.families import (
    EVERY_OTHER,
    Fields,
    alternating,
    everywhere,
    qwen2,
    qwen3,
    shape_of,
    windows_of,
)
from bssim.cost_models.llm.hf_config import HfConfig
from bssim.errors import InputError

NOPE_INTERVAL = 4
"""Llama 4: every fourth layer has no rotary positions and sees the whole context."""


def _experts(config: HfConfig, count: str, *active: str) -> Fields:
    """Return the fields of routed experts; ``count`` and ``active`` are names in the config."""
    return {
        "num_experts": config.number(count),
        "experts_per_token": config.number(*(active or ("num_experts_per_tok",))),
        "moe_intermediate_size": config.number("moe_intermediate_size", "intermediate_size"),
    }


def _mixtral(config: HfConfig) -> Fields:
    shape = shape_of(config)
    return {
        **shape,
        **windows_of(config, shape, default=everywhere(config)),
        **_experts(config, "num_local_experts"),
    }


def _phimoe(config: HfConfig) -> Fields:
    bias = config.flag("attention_bias", False)
    return {
        **_mixtral(config),
        "attention_bias": bias,
        "attention_output_bias": bias,
        "norm_bias": True,
    }


def _granitemoe(config: HfConfig) -> Fields:
    return {
        **shape_of(config),
        **_experts(config, "num_local_experts"),
        "attention_bias": config.flag("attention_bias", False),
        "shared_expert_intermediate_size": config.number("shared_intermediate_size", default=0),
    }


def _olmoe(config: HfConfig) -> Fields:
    return {**shape_of(config), **_experts(config, "num_experts"), "qk_norm_all_heads": True}


def _minimax_m2(config: HfConfig) -> Fields:
    return {**shape_of(config), **_experts(config, "num_local_experts"), "qk_norm_all_heads": True}


def _qwen_moe(config: HfConfig) -> Fields:
    """Every ``decoder_sparse_step``-th layer is sparse, except those in ``mlp_only_layers``."""
    step = config.number("decoder_sparse_step", default=1)
    only = config.listed("mlp_only_layers")
    base = qwen2(config) if config.kind == "qwen2_moe" else qwen3(config)
    layers = base["num_layers"]
    sparse = [i for i in range(layers) if i not in only and (i + 1) % max(step, 1) == 0]
    return {
        **base,
        **_experts(config, "num_experts"),
        "num_dense_layers": layers - len(sparse),
        "shared_expert_intermediate_size": config.number(
            "shared_expert_intermediate_size", default=0
        ),
    }


def _gpt_oss(config: HfConfig) -> Fields:
    """Every other layer slides over 128 tokens; each head has a sink; all matrices have biases."""
    shape = shape_of(config)
    kinds = alternating(config, EVERY_OTHER)
    return {
        **shape,
        **windows_of(config, shape, default=kinds, sinks=True),
        **_experts(config, "num_local_experts", "num_experts_per_tok", "experts_per_token"),
        "attention_bias": config.flag("attention_bias", True),
        "attention_output_bias": config.flag("attention_bias", True),
        "mlp_bias": True,
    }


def _llama4(config: HfConfig) -> Fields:
    """Three of four layers see only their chunk; each token uses a shared and a routed expert."""
    shape = shape_of(config)
    layers = shape["num_layers"]
    rope = config.listed("no_rope_layers") or [
        int((i + 1) % NOPE_INTERVAL != 0) for i in range(layers)
    ]
    kinds = ["chunked_attention" if has else "full_attention" for has in rope]
    step = config.divisor("interleave_moe_layer_step", default=1)
    sparse = config.listed("moe_layers") or list(range(step - 1, layers, step))
    experts = _experts(config, "num_local_experts")
    chunk = config.window("attention_chunk_size")
    return {
        **shape,
        **windows_of(config, shape, default=kinds, windows={"chunked": chunk}),
        **experts,
        "intermediate_size": config.number("intermediate_size_mlp"),
        "shared_expert_intermediate_size": experts["moe_intermediate_size"],
        "num_dense_layers": layers - len(sparse),
    }


def _deepseek_experts(config: HfConfig) -> Fields:
    """Return the experts of DeepSeek's layout: shared experts, and dense first layers."""
    if not config.number("n_routed_experts", default=0):
        return {}
    if config.number("moe_layer_freq", default=1) != 1:
        raise InputError(f"{config.path}: moe_layer_freq", f"{config.data['moe_layer_freq']}", "1")
    experts = _experts(config, "n_routed_experts")
    shared = config.number("n_shared_experts", default=0)
    return {
        **experts,
        "shared_expert_intermediate_size": shared * experts["moe_intermediate_size"],
        "num_dense_layers": config.number("first_k_dense_replace", default=0),
    }


def _mla(config: HfConfig) -> Fields:
    shape = shape_of(config)
    return {
        **shape,
        "q_lora_rank": config.number("q_lora_rank", default=0),
        "kv_lora_rank": config.number("kv_lora_rank"),
        "qk_nope_head_dim": config.number("qk_nope_head_dim"),
        "qk_rope_head_dim": config.number("qk_rope_head_dim"),
        "v_head_dim": config.number("v_head_dim", default=shape["head_dim"]),
    }


def _deepseek(config: HfConfig) -> Fields:
    return {**_mla(config), **_deepseek_experts(config)}


def _glm4_moe(config: HfConfig) -> Fields:
    return {
        **shape_of(config),
        **_deepseek_experts(config),
        "attention_bias": config.flag("attention_bias", False),
        "qk_norm": config.flag("use_qk_norm", False),
    }


def _dots1(config: HfConfig) -> Fields:
    return {**shape_of(config), **_deepseek_experts(config), "qk_norm": True}


def _minicpm3(config: HfConfig) -> Fields:
    return {**_mla(config), "tie_word_embeddings": config.flag("tie_word_embeddings", True)}


def _ernie_moe(config: HfConfig) -> Fields:
    shape = shape_of(config)
    experts = _experts(config, "moe_num_experts", "moe_k")
    layers = config.divisor("num_hidden_layers")
    first = max(config.number("moe_layer_start_index", default=0), 0)
    last = config.number("moe_layer_end_index", default=-1) % layers
    step = config.divisor("moe_layer_interval", default=1)
    sparse = [i for i in range(first, last + 1) if (i + 1) % step == 0]
    shared = config.number("moe_num_shared_experts", default=0)
    return {
        **shape,
        **experts,
        "tie_word_embeddings": config.flag("tie_word_embeddings", True),
        "shared_expert_intermediate_size": shared * experts["moe_intermediate_size"],
        "num_dense_layers": layers - len(sparse),
    }


def _hunyuan_moe(config: HfConfig) -> Fields:
    experts = _experts(config, "num_experts", "moe_topk")
    shared = config.number("num_shared_expert", default=1)
    return {
        **shape_of(config),
        **experts,
        "qk_norm": config.flag("use_qk_norm", True),
        "shared_expert_intermediate_size": shared * experts["moe_intermediate_size"],
    }


SPARSE: dict[str, Callable[[HfConfig], Fields]] = {
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "dots1": _dots1,
    "ernie4_5_moe": _ernie_moe,
    "glm4_moe": _glm4_moe,
    "gpt_oss": _gpt_oss,
    "granitemoe": _granitemoe,
    "granitemoeshared": _granitemoe,
    "hunyuan_v1_moe": _hunyuan_moe,
    "kimi_k2": _deepseek,
    "llama4_text": _llama4,
    "minicpm3": _minicpm3,
    "minimax_m2": _minimax_m2,
    "mixtral": _mixtral,
    "olmoe": _olmoe,
    "phimoe": _phimoe,
    "qwen2_moe": _qwen_moe,
    "qwen3_moe": _qwen_moe,
}
"""``model_type`` -> function that returns its fields; families with experts or MLA."""
