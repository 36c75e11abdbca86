"""Precisions: bytes, formats, what is quantised, and what is refused by name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bssim.cost_models.density import DensityConstants
from bssim.cost_models.hardware import (
    as_run,
    held_shares,
    kv_capacity_tokens,
    load_hardware,
    padded_layers,
    precision_notes,
    window_note,
)
from bssim.cost_models.llm import load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.step_cost import StepWork
from bssim.errors import InputError

FOLDER = Path(__file__).parents[1] / "data" / "configs"
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}
BODY = 32 * (4096 * (4096 + 2048) + 4096 * 4096 + 3 * 4096 * 14336)
"""Elements of the matrices inside the layers."""


def _write(tmp_path: Path, **changes: object) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    return tmp_path


def _scheme(bits: int, kind: str, group: int | None, inputs: dict[str, Any] | None) -> object:
    weights = {"num_bits": bits, "type": kind, "group_size": group, "symmetric": True}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}


@pytest.mark.parametrize(
    ("scheme", "bytes_per_weight", "gemm_format"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 0.5 + 2.5 / 128, "w4a16"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True}, 0.5625, "w4a16"),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1, "sym": True}, 1.0, "w8a16"),
        ({"quant_method": "fp8"}, 1.0, "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1 + 4 / 16384, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5625, "w4a16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 0.5625, "fp4"),
        (_scheme(8, "int", None, {"num_bits": 8, "type": "int"}), 1.0, "int8"),
        (_scheme(8, "float", None, {"num_bits": 8, "type": "float"}), 1.0, "fp8"),
        (_scheme(4, "int", 128, None), 0.515625, "w4a16"),
    ],
)
def test_facts_of_a_quantisation_config(
    scheme: object, bytes_per_weight: float, gemm_format: str, tmp_path: Path
) -> None:
    plain = load_llm(_write(tmp_path))
    llm = load_llm(_write(tmp_path, quantization_config=scheme))
    assert llm.precision.gemm_format("mlp") == gemm_format
    assert llm.precision.gemm_format("lm_head") == "bf16"
    assert llm.num_params == plain.num_params
    assert llm.weight_bytes == pytest.approx(
        plain.weight_bytes - BODY * (2 - bytes_per_weight), abs=1
    )


def test_weights_are_as_large_as_the_published_files() -> None:
    """Sums of the safetensors files on Hugging Face: 9.99, 13.76 and 65.2 GB."""
    for name, size in (("qwen2.5-14b-awq", 9.99e9), ("gpt-oss-20b", 13.76e9)):
        assert load_llm(FOLDER / f"{name}.json").weight_bytes == pytest.approx(size, rel=0.01)


def test_awq_14b_fits_a_card_of_24_gb(tmp_path: Path) -> None:
    card = tmp_path / "card.yaml"
    card.write_text('base: l40s\nmemory_bytes: {value: 2.4e+10, source: "24 GB"}\n')
    hardware = load_hardware(card)
    awq = load_llm(FOLDER / "qwen2.5-14b-awq.json")
    assert kv_capacity_tokens(awq, hardware) > 30_000
    with pytest.raises(InputError, match=r"weights take 29\.5 GB"):
        kv_capacity_tokens(load_llm(FOLDER / "qwen2.5-14b-awq.json", quantization="none"), hardware)


def test_options_are_vllms_names() -> None:
    plain = load_llm("llama-3-8b")
    fp8 = load_llm("llama-3-8b", quantization="fp8", kv_cache_dtype="fp8")
    assert fp8.precision.label == "fp8 + fp8 KV"
    assert 2 * fp8.kv_bytes_per_token == plain.kv_bytes_per_token
    assert plain.weight_bytes - fp8.weight_bytes == BODY
    assert load_llm("llama-3-8b", dtype="float32").weight_bytes == 2 * plain.weight_bytes
    assert load_llm("llama-3-8b", dtype="half").precision.gemm_format("mlp") == "fp16"
    assert load_llm("llama-3-8b", dtype="auto", kv_cache_dtype="auto") == plain
    oss = load_llm(FOLDER / "gpt-oss-20b.json").precision
    assert (oss.quantized, oss.gemm_format("experts")) == (("experts",), "w4a16")


def test_kv_types_of_a_config(tmp_path: Path) -> None:
    kv = {"kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    scheme = {"quant_method": "fp8", **kv}
    assert load_llm(_write(tmp_path, quantization_config=scheme)).kv_dtype_bytes == 1
    path = _write(tmp_path, quantization_config=scheme)
    assert load_llm(path, kv_cache_dtype="bfloat16").kv_dtype_bytes == 2


def test_exceptions_leave_a_kind_of_matrix_plain(tmp_path: Path) -> None:
    scheme = {"quant_method": "fp8", "ignored_layers": ["re:.*self_attn.*", "lm_head"]}
    llm = load_llm(_write(tmp_path, quantization_config=scheme))
    assert llm.precision.quantized == ("mlp",)
    some = {"quant_method": "fp8", "ignored_layers": ["model.layers.0.mlp"]}
    with pytest.raises(InputError, match="found mlp unquantised in 1 of 32 layers"):
        load_llm(_write(tmp_path, quantization_config=some))


def test_lists_of_exceptions_are_read_as_checkpoints_write_them(tmp_path: Path) -> None:
    """Module by module, as Qwen's FP8 checkpoints; wildcards; parts of paths; a part of a kind."""
    routers = [f"model.layers.{i}.mlp.gate" for i in range(32)]
    norms = [f"model.layers.{i}.input_layernorm" for i in range(32)]
    for ignored, quantised in (
        ([*routers, *norms, "lm_head"], ("qkv_proj", "o_proj", "mlp")),
        (["model.layers.*.self_attn"], ("mlp",)),
        (["self_attn"], ("mlp",)),
        (
            [f"model.layers.{i}.mlp.{m}_proj" for i in range(32) for m in ("gate", "up", "down")],
            ("qkv_proj", "o_proj"),
        ),
    ):
        scheme = {"quant_method": "fp8", "modules_to_not_convert": ignored}
        llm = load_llm(_write(tmp_path, quantization_config=scheme))
        assert llm.precision.quantized == quantised
    scheme = {"quant_method": "fp8", "ignored_layers": ["re:.*down_proj"]}
    with pytest.raises(InputError, match="found a part of mlp unquantised in layer 0"):
        load_llm(_write(tmp_path, quantization_config=scheme))


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ({"quant_method": "hqq"}, "found 'hqq'"),
        ({"quant_method": "gptq", "bits": 3}, "found 3 bits"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "found load_in_8bit"),
        ({"bits": 4}, "quant_method: found None"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8"}, "quant_algo: found 'W4A8'"),
        (_scheme(4, "int", 128, {"num_bits": 8, "type": "int"}), "weights of 4 bits (int)"),
        (
            {"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 4, "type": "int"}},
            "kv_cache_scheme: found 4 bits (int)",
        ),
        ({"quant_method": "fp8", "weight_block_size": [128, 0]}, "found group size 0"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "found block 128"),
        ({"quant_method": "awq", "group_size": 10**400}, "found group size 1000"),
        ({"quant_method": "fp8", "ignored_layers": 3}, "ignored_layers: found 3"),
        ({"quant_method": "fp8", "ignored_layers": ["re:("]}, "found 're:('"),
        ({"quant_method": "modelopt", "quantization": "FP8"}, "quantization: found 'FP8'"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": 3}},
            "config_groups: g: found 3",
        ),
    ],
)
def test_what_cannot_be_priced_is_refused_by_name(
    scheme: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        load_llm(_write(tmp_path, quantization_config=scheme))
    assert message in str(error.value)
    assert "config.json" in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "fp9"}, "quantization: found 'fp9'"),
        ({"quantization": "compressed-tensors"}, "does not say which scheme"),
        ({"quantization": "mxfp4"}, "expected a method that quantises some weights of llama-3-8b"),
        ({"dtype": "int8"}, "dtype: found 'int8'"),
        ({"kv_cache_dtype": "int4"}, "kv_cache_dtype: found 'int4'"),
        ({"dtype": "float32", "quantization": "fp8"}, "found float32 with fp8 weights"),
    ],
)
def test_bad_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as error:
        load_llm("llama-3-8b", **options)
    assert message in str(error.value)


def test_float32_is_priced_as_such_and_the_note_says_what_vllm_does(tmp_path: Path) -> None:
    path = _write(tmp_path, torch_dtype="float32")
    own, chosen = load_llm(path), load_llm(path, dtype="float32")
    assert own.precision == chosen.precision
    assert own.precision.gemm_format("mlp") == "fp32"
    assert any("--dtype bfloat16" in note for note in own.notes)
    assert not chosen.notes
    assert not load_llm(path, dtype="bfloat16").notes


def test_a_yaml_file_names_precision_and_groups_of_layers(tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "num_layers": 4, "num_attention_heads": 4, "num_kv_heads": 2}
    shape |= {"head_dim": 16, "intermediate_size": 128, "vocab_size": 100}
    group = {"layers": 3, "num_heads": 4, "num_kv_heads": 2, "head_dim": 16}
    groups = [{**group, "kind": "sliding", "window": 8}, {**group, "layers": 1}]
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps({**shape, "quantization": "fp8", "attention_layers": groups}))
    llm = load_llm(path)
    assert llm.precision.quantization == "fp8"
    assert llm.windowed == llm.attention_groups[0]
    path.write_text(json.dumps({**shape, "attention_layers": groups[:1]}))
    with pytest.raises(InputError, match="groups of 3 layers; expected groups that add up to"):
        load_llm(path)
    path.write_text(json.dumps({**shape, "attention_layers": [{"layer": 3}]}))
    with pytest.raises(InputError, match=r":1: attention_layers\[0\].layer: unknown key: found"):
        load_llm(path)


def test_fp8_weights_run_expanded_on_a_gpu_without_fp8() -> None:
    fp8, a100, h100 = (
        load_llm("llama-3-8b", quantization="fp8"),
        load_hardware("a100-80gb"),
        load_hardware("h100-sxm"),
    )
    assert as_run(fp8, a100).precision.gemm_format("mlp") == "w8a16"
    assert as_run(fp8, a100).weight_bytes == fp8.weight_bytes
    assert as_run(fp8, h100) == fp8
    assert a100.peak("w8a16") == a100.flops
    assert not precision_notes(fp8, h100)
    assert "a100-80gb has no fp8 units" in precision_notes(fp8, a100)[0]
    int8 = load_llm("llama-3-8b", quantization="int8")
    b200 = load_hardware("b200")
    run = as_run(int8, b200).precision.gemm_format("mlp")
    with pytest.raises(InputError, match="b200: found no peak for int8 GEMMs"):
        b200.peak(run)


def test_layers_with_windows_hold_less_of_a_pool() -> None:
    gemma, mistral = (
        load_llm(FOLDER / f"{name}.json") for name in ("gemma-3-27b", "mistral-7b-v0.1")
    )
    assert padded_layers(gemma) == [60, 10]
    assert padded_layers(mistral) == [32]
    assert padded_layers(load_llm(FOLDER / "gpt-oss-20b.json")) == [12, 12]
    prompts, outputs = np.array([6000, 100]), np.array([2000, 10])
    held = sum(min(p + i, 4096) for p, d in ((6000, 2000), (100, 10)) for i in range(1, d + 1))
    tokens = sum(p + i for p, d in ((6000, 2000), (100, 10)) for i in range(1, d + 1))
    assert held_shares(mistral, prompts, outputs) == [pytest.approx(held / tokens)]
    a100 = load_hardware("a100-80gb")
    whole = kv_capacity_tokens(mistral, a100)
    assert kv_capacity_tokens(mistral, a100, lengths=(prompts, outputs)) == pytest.approx(
        whole * tokens / held, abs=1
    )
    assert window_note(load_llm("llama-3-8b"), (prompts, outputs)) is None
    assert f"hold {held / tokens:.0%} of the context" in str(
        window_note(mistral, (prompts, outputs))
    )


def test_every_cost_model_follows_the_precision() -> None:
    """Whole steps: nothing is priced as bfloat16 that is not."""
    h100 = load_hardware("h100-sxm")
    work = StepWork(
        decode_requests=64.0,
        decode_context_tokens=64e3,
        prefill_requests=4.0,
        prefill_tokens=4000.0,
        prefill_attention_pairs=2e6,
        sampled_tokens=68.0,
    )
    for name in ("paper", "roofline"):
        plain, fp8, kv, wide = (
            make_cost_model(name, load_llm("llama-3-8b", **options), h100).step_cost(work)
            for options in (
                {},
                {"quantization": "fp8"},
                {"kv_cache_dtype": "fp8"},
                {"dtype": "float32"},
            )
        )
        assert fp8.compute_s < 0.85 * plain.compute_s
        assert kv.memory_s < 0.75 * plain.memory_s
        assert wide.compute_s > 8 * plain.compute_s
        assert wide.memory_s > 1.5 * plain.memory_s
    int8 = load_llm("llama-3-8b", quantization="int8")
    for name in ("paper", "roofline"):
        with pytest.raises(InputError, match="b200: found no peak for int8"):
            make_cost_model(name, int8, load_hardware("b200"))


def test_density_counts_what_windows_see() -> None:
    oss, h100 = load_llm("gpt-oss-20b"), load_hardware("h100-sxm")
    lengths = (np.array([127]), np.array([1]))
    full = DensityConstants.of(oss, h100)
    assert full.kv_bytes_per_token == oss.kv_bytes_per_token
    assert DensityConstants.of(oss, h100, lengths=lengths).kv_bytes_per_token == pytest.approx(
        oss.kv_bytes_per_token
    )
    lengths = (np.array([100_000]), np.array([10]))
    assert DensityConstants.of(oss, h100, lengths=lengths).kv_bytes_per_token == pytest.approx(
        oss.kv_bytes_per_token / 2, rel=0.01
    )


def test_float32_says_whose_shares_it_takes() -> None:
    wide = load_llm("llama-3-8b", dtype="float32")
    assert "the float32 peak of a100-80gb" in precision_notes(wide, load_hardware("a100-80gb"))[0]
    measured = replace(load_hardware("cpu"), flops_format="fp32")
    assert not precision_notes(wide, measured)


def test_a_config_of_another_name_is_called_by_it() -> None:
    assert load_llm(FOLDER / "gpt-oss-20b.json").name == "gpt-oss-20b"


def test_windows_shorten_reads_and_prefill() -> None:
    a100 = load_hardware("a100-80gb")
    mistral = load_llm(FOLDER / "mistral-7b-v0.1.json")
    full = replace(mistral, attention_layers=())
    work = StepWork(decode_requests=8.0, decode_context_tokens=8 * 16384.0)
    prompt = StepWork(
        prefill_requests=1.0, prefill_tokens=16384.0, prefill_attention_pairs=16384 * 16385 / 2
    )
    for name in ("paper", "roofline"):
        seen, everything = (make_cost_model(name, llm, a100) for llm in (mistral, full))
        share = float(seen.step_cost(work).memory_s) / float(everything.step_cost(work).memory_s)
        assert 0.24 < share < 0.35  # shorter reads reach less of the bandwidth
    seen, everything = (
        {o.name: o.flops for o in make_cost_model("roofline", llm, a100).operators(prompt)}
        for llm in (mistral, full)
    )
    ratio = mistral.attention_groups[0].visible_pairs(16384, 0) / (16384 * 16385 / 2)
    assert seen["prefill_attention"] == pytest.approx(ratio * everything["prefill_attention"])


def test_a_checkpoint_has_one_method() -> None:
    awq = FOLDER / "qwen2.5-14b-awq.json"
    assert load_llm(awq, quantization="awq_marlin") == load_llm(awq)
    with pytest.raises(InputError, match="whose weights are 'awq'; expected awq, none"):
        load_llm(awq, quantization="fp8")
