"""Real config.json files: sizes as published and as transformers builds them, and attention."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bssim.cost_models.llm import load_llm
from bssim.cost_models.silicon import has_tables

FOLDER = Path(__file__).parents[1] / "data" / "configs"
CONFIGS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))
}
PUBLISHED = [name for name, config in CONFIGS.items() if "_published" in config]
BUILT = [name for name, config in CONFIGS.items() if "_transformers_params" in config]


def test_there_are_many_families() -> None:
    def family(config: dict[str, Any]) -> str:
        return config.get("text_config", config)["model_type"]

    assert len({family(CONFIGS[name]) for name in PUBLISHED}) >= 25
    assert all("config.json of" in config["_source"] for config in CONFIGS.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_within_a_percent_of_the_published_count(name: str) -> None:
    published = CONFIGS[name]["_published"]
    assert published["source"]
    assert load_llm(FOLDER / f"{name}.json").num_params == pytest.approx(
        published["params"], rel=0.01
    )


@pytest.mark.parametrize("name", BUILT)
def test_parameters_are_those_that_transformers_5_19_allocates(name: str) -> None:
    """Biases of routers and of LM heads are all that may be missing."""
    built = CONFIGS[name]["_transformers_params"]
    assert load_llm(FOLDER / f"{name}.json").num_params == pytest.approx(built, rel=2e-4)


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("gemma-2-9b", {("full", 0): 21, ("sliding", 4096): 21}),
        ("gemma-3-27b", {("sliding", 1024): 52, ("full", 0): 10}),
        ("gpt-oss-20b", {("full", 0): 12, ("sliding", 128): 12}),
        ("llama-4-scout", {("chunked", 8192): 36, ("full", 0): 12}),
        ("mistral-7b-v0.1", {("sliding", 4096): 32}),
        ("phi-3-mini-4k", {("sliding", 2047): 32}),
        ("command-r7b", {("sliding", 4097): 24, ("full", 0): 8}),
        ("phi-3.5-moe", {("full", 0): 32}),
        ("qwen2.5-14b-awq", {("full", 0): 48}),
    ],
)
def test_layers_by_attention(name: str, groups: dict[tuple[str, int], int]) -> None:
    llm = load_llm(FOLDER / f"{name}.json")
    assert {(group.kind, group.window): group.layers for group in llm.attention_groups} == groups


def test_sinks_and_soft_capping_are_kept() -> None:
    oss, gemma = load_llm(FOLDER / "gpt-oss-20b.json"), load_llm(FOLDER / "gemma-2-9b.json")
    assert all(group.sinks and not group.softcap for group in oss.attention_groups)
    assert all(group.softcap and not group.sinks for group in gemma.attention_groups)
    assert gemma.logit_softcap


def test_interleaved_experts_and_the_shared_one() -> None:
    maverick, scout = (load_llm(FOLDER / f"llama-4-{name}.json") for name in ("maverick", "scout"))
    assert (maverick.num_dense_layers, maverick.num_moe_layers) == (24, 24)
    assert (scout.num_dense_layers, scout.num_moe_layers) == (0, 48)
    assert scout.shared_expert_intermediate_size == 8192
    assert any("other towers are left out" in note for note in scout.notes)
    assert scout.num_active_params == pytest.approx(17e9, rel=0.011)


NVIDIAS = {
    "llama-3.1-8b": "meta-llama--Meta-Llama-3.1-8B",
    "llama-3.1-70b": "meta-llama--Meta-Llama-3.1-70B",
    "llama-3.1-405b": "meta-llama--Meta-Llama-3.1-405B",
    "llama-4-scout": "meta-llama--Llama-4-Scout-17B-16E-Instruct",
    "qwen3-8b": "Qwen--Qwen3-8B",
    "qwen3-32b": "Qwen--Qwen3-32B",
    "qwen3-30b-a3b": "Qwen--Qwen3-30B-A3B",
    "qwen3-235b-a22b": "Qwen--Qwen3-235B-A22B",
    "mixtral-8x7b": "mistralai--Mixtral-8x7B-v0.1",
    "gpt-oss-20b": "openai--gpt-oss-20b",
    "gpt-oss-120b": "openai--gpt-oss-120b",
    "deepseek-v3": "deepseek-ai--DeepSeek-V3",
}
"""Shipped model -> the copy of its config.json in aiconfigurator-core."""


@pytest.mark.skipif(not has_tables("a100-80gb"), reason="needs aiconfigurator-core")
@pytest.mark.parametrize("name", sorted(NVIDIAS))
def test_shipped_models_are_those_of_nvidia_s_copies_of_their_configs(name: str) -> None:
    spec = find_spec("aiconfigurator_core")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model_configs"
    copy, shipped = load_llm(folder / f"{NVIDIAS[name]}_config.json"), load_llm(name)
    for fact in ("num_params", "num_active_params", "attention_groups", "kv_bytes_per_token"):
        assert getattr(shipped, fact) == getattr(copy, fact)
