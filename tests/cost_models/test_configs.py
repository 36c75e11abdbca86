"""Real config.json files: sizes as published and as transformers builds them, and attention."""

import json
from pathlib import Path
from typing import Any

import pytest

from bssim.cost_models.llm import load_llm

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
