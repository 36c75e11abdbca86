"""LLM specs: published sizes, Hugging Face configs, errors."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bssim.cost_models.llm import Shard, known_llms, load_llm
from bssim.errors import InputError

PUBLISHED = {
    "llama-3-8b": (8.03e9, 8.03e9),
    "llama-3.1-8b": (8.03e9, 8.03e9),
    "llama-3-70b": (70.55e9, 70.55e9),
    "llama-3.1-70b": (70.55e9, 70.55e9),
    "llama-3.3-70b": (70.55e9, 70.55e9),
    "llama-3.1-405b": (405.85e9, 405.85e9),
    "mistral-7b": (7.25e9, 7.25e9),
    "llama-3.2-1b": (1.24e9, 1.24e9),
    "llama-2-7b": (6.74e9, 6.74e9),
    "qwen-2.5-0.5b": (0.494e9, 0.494e9),
    "qwen-2.5-7b": (7.62e9, 7.62e9),
    "qwen-2.5-72b": (72.7e9, 72.7e9),
    "qwen3-8b": (8.19e9, 8.19e9),
    "qwen3-14b": (14.77e9, 14.77e9),
    "qwen3-32b": (32.76e9, 32.76e9),
    "qwen3-30b-a3b": (30.5e9, 3.35e9),
    "mixtral-8x7b": (46.7e9, 12.9e9),
    "mixtral-8x22b": (140.6e9, 39.1e9),
    "gemma-2-9b": (9.24e9, 9.24e9),
    "gemma-3-27b": (27.016e9, 27.016e9),
    "phi-4": (14.7e9, 14.7e9),
    "qwen3-235b-a22b": (235e9, 22e9),
    "llama-4-scout": (108.1e9, 17e9),
    # published without the embedding, which is added here
    "gpt-oss-20b": (20.91e9, 3.61e9 + 201088 * 2880),
    "gpt-oss-120b": (116.83e9, 5.13e9 + 201088 * 2880),
    "glm-4.5-air": (106e9, 12e9 + 2 * 151552 * 4096),
    "deepseek-67b": (67.4e9, 67.4e9),
    "deepseek-v3": (671e9, 37.5e9),
}


def test_every_shipped_spec_has_a_published_size() -> None:
    assert sorted(PUBLISHED) == known_llms()


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_match_the_published_counts(name: str) -> None:
    llm = load_llm(name)
    total, active = PUBLISHED[name]
    assert llm.name == name
    assert llm.num_params == pytest.approx(total, rel=0.01)
    assert llm.num_active_params == pytest.approx(active, rel=0.015)  # published as 17B, 22B
    if llm.precision.quantization is None:
        assert llm.weight_bytes == 2 * llm.num_params
    assert "config.json" in llm.source


def test_kv_bytes_by_kind_of_attention() -> None:
    gqa = load_llm("llama-3-8b")
    assert (gqa.attention, gqa.kv_size, gqa.kv_bytes_per_token) == ("GQA", 1024, 32 * 1024 * 4)
    assert (load_llm("llama-2-7b").attention, load_llm("llama-2-7b").kv_size) == ("MHA", 4096)
    mla = load_llm("deepseek-v3")
    assert (mla.attention, mla.kv_bytes_per_token) == ("MLA", 61 * (512 + 64) * 2)
    assert (Shard(mla, 8).kv_shards, Shard(gqa, 4).kv_shards, Shard(gqa, 16).kv_shards) == (1, 4, 8)


LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
CONFIGS = {
    "llama-3-8b": LLAMA,
    "qwen-2.5-7b": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
        "sliding_window": 131072,
        "max_position_embeddings": 131072,
        "use_sliding_window": False,
    },
    "mixtral-8x7b": {
        **LLAMA,
        "model_type": "mixtral",
        "vocab_size": 32000,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "sliding_window": None,
    },
    "qwen3-30b-a3b": {
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "head_dim": 128,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "vocab_size": 151936,
    },
    "deepseek-v3": {
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "first_k_dense_replace": 3,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vocab_size": 129280,
        "quantization_config": {"quant_method": "fp8"},
        "num_nextn_predict_layers": 1,
    },
}


def _write(tmp_path, config) -> str:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_hugging_face_folder_gives_the_shipped_spec(name: str, tmp_path) -> None:
    shipped = load_llm(name)
    read = load_llm(_write(tmp_path, CONFIGS[name]))
    for field in ("num_params", "num_active_params", "kv_bytes_per_token", "attention"):
        assert getattr(read, field) == getattr(shipped, field), field
    assert read.prefill_flops_per_pair == shipped.prefill_flops_per_pair


def test_gpt2_and_opt_sizes(tmp_path) -> None:
    gpt2 = {
        "model_type": "gpt2",
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 1024,
        "vocab_size": 50257,
    }
    assert load_llm(_write(tmp_path, gpt2)).num_params == pytest.approx(124.4e6, rel=0.01)
    opt = {
        "model_type": "opt",
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "ffn_dim": 3072,
        "max_position_embeddings": 2048,
        "word_embed_proj_dim": 768,
        "vocab_size": 50272,
    }
    assert load_llm(_write(tmp_path, opt)).num_params == pytest.approx(125.2e6, rel=0.01)


def test_what_a_config_has_and_the_model_leaves_out_is_noted(tmp_path) -> None:
    notes = load_llm(_write(tmp_path, CONFIGS["deepseek-v3"])).notes
    assert notes == ("multi-token prediction layers are left out",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, "model_type: found 'mamba'"),
        ({"model_type": None}, "model_type: found None"),
        ({"hidden_size": None}, "'hidden_size'"),
        ({"hidden_size": "4096"}, "hidden_size: found '4096'"),
        ({"num_hidden_layers": 0}, "num_layers: found 0"),
        ({"num_key_value_heads": 5}, "num_kv_heads: found 5"),
        ({"torch_dtype": "int4"}, "torch_dtype: found 'int4'"),
        ({"sliding_window": "wide"}, "sliding_window: found 'wide'"),
        ({"layer_types": ["full_attention"]}, "layer_types: found ['full_attention']"),
        ({"layer_types": ["linear_attention"] * 32}, "layer_types: found 'linear_attention'"),
        ({"layer_types": [[]] * 32}, "layer_types: found []"),
        (
            {"model_type": "cohere2", "sliding_window": 9, "sliding_window_pattern": 0},
            "sliding_window_pattern: found 0",
        ),
        ({"model_type": "falcon", "num_attention_heads": 0}, "num_attention_heads: found 0"),
        (
            {"model_type": "llama4_text", "interleave_moe_layer_step": 0},
            "interleave_moe_layer_step: found 0",
        ),
        ({"model_type": "llama4_text", "no_rope_layers": 3}, "no_rope_layers: found 3"),
        ({"model_type": "gpt2", "n_head": 1, "n_embd": 9, "n_layer": 2**40}, "n_layer: found"),
        ({"model_type": "qwen3_next"}, "model_type: found 'qwen3_next'"),
        ({"model_type": "jamba"}, "model_type: found 'jamba'"),
    ],
)
def test_bad_configs_are_answered_with_the_field(change, message: str, tmp_path) -> None:
    with pytest.raises(InputError) as error:
        load_llm(_write(tmp_path, {**LLAMA, **change}))
    assert message in str(error.value)
    assert "config.json" in str(error.value)


def test_unknown_names_and_files(tmp_path) -> None:
    with pytest.raises(InputError, match="did you mean 'llama-3-8b'"):
        load_llm("lama-3-8b")
    with pytest.raises(InputError, match="No such file"):
        load_llm(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("hidden_sizes: 3\n")
    with pytest.raises(InputError, match="did you mean 'hidden_size'"):
        load_llm(bad)
    bad.write_text("hidden_size: 3\n")
    with pytest.raises(InputError, match="missing"):
        load_llm(bad)
    bad.write_text("notes: 3\n")
    with pytest.raises(InputError, match="notes: found 3; expected a valid list"):
        load_llm(bad)


def test_an_empty_name_is_no_folder() -> None:
    with pytest.raises(InputError, match="model: found ''; expected one of: "):
        load_llm("")


def test_a_negative_size_and_a_name_too_long_for_the_file_system() -> None:
    with pytest.raises(InputError, match="shared_expert_intermediate_size: found -5; expected"):
        replace(load_llm("llama-3-8b"), shared_expert_intermediate_size=-5)
    with pytest.raises(InputError, match="model: found 'xxx"):
        load_llm("x" * 300)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("qwen3-235b-a22b", "num_hidden_layers", 10**400),
        ("gpt-oss-20b", "num_hidden_layers", 1 << 53),
        ("qwen3-235b-a22b", "mlp_only_layers", "x"),
    ],
)
def test_damaged_sizes_of_a_model_are_refused(
    tmp_path: Path, name: str, field: str, value: object
) -> None:
    folder = Path(__file__).parents[1] / "data" / "configs"
    config = json.loads((folder / f"{name}.json").read_text()) | {field: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        load_llm(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("changes", "longest"),
    [
        ({}, 0),
        ({"max_position_embeddings": 8192}, 8192),
        ({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "llama3"}}, 8192),
        ({"max_position_embeddings": 8192, "rope_scaling": {"type": "yarn", "factor": 4.0}}, 0),
        ({"max_position_embeddings": 8192, "rope_parameters": {"rope_type": "yarn"}}, 0),
    ],
)
def test_the_longest_context_is_unknown_where_scaled_positions_reach_further(
    changes: dict[str, object], longest: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    assert load_llm(tmp_path).max_position_embeddings == longest
