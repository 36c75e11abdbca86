from importlib import resources

import numpy as np
import pytest
import yaml

from bssim.cost_models.density import DensityConstants
from bssim.errors import InputError
from bssim.sim.workload import (
    SOURCE_NAMES,
    TRACES,
    MixSpec,
    builtin_source,
    load_mix,
    load_workload,
    make_workload,
    pool_density,
    request_density,
)
from bssim.sim.workload.readers import ReaderOptions
from bssim.sim.workload.sources import FileSource
from bssim.sim.workload.synthesis import mix, trace

SPECS = resources.files("bssim.sim.workload") / "specs"


def spec_of(name: str) -> dict:
    return yaml.safe_load((SPECS / f"{name}.yaml").read_text("utf-8"))


@pytest.mark.parametrize("name", SOURCE_NAMES)
def test_a_source_has_the_means_sharing_and_density_of_the_paper(name):
    w = load_workload(name, num_requests=100_000)
    paper = spec_of(name)["paper"]
    # MMLU: the file's prompts average 676 tokens and share 0.843; the paper's trie of the text
    # shares more. ShareGPT is NanoFlow's trace, WildChat's short prompts grow by its system prompt.
    tolerance = {"mmlu": 0.17, "sharegpt": 0.25}.get(name, 0.06)
    assert pool_density(w) == pytest.approx(paper["density"], rel=tolerance)
    assert w.sharing_max == pytest.approx(paper["sharing"], abs=0.02)
    if "prompt_tokens_mean" in paper:
        assert w.prompt_tokens.mean() == pytest.approx(paper["prompt_tokens_mean"], rel=tolerance)
        assert w.output_tokens.mean() == pytest.approx(paper["output_tokens_mean"], rel=0.04)


def labelled(entry: object) -> list[dict]:
    if not isinstance(entry, dict):
        return []
    return [entry] if "label" in entry else [n for v in entry.values() for n in labelled(v)]


@pytest.mark.parametrize("name", SOURCE_NAMES)
def test_every_number_of_a_source_says_where_it_comes_from(name):
    spec = spec_of(name)
    assert spec.pop("name") == name
    spec.pop("paper")
    if name == "mmlu":
        assert spec.pop("subjects_label") == "fitted"
        assert len(spec.pop("subjects_from")) > 40
        assert len(spec.pop("subjects")) == 57
    for key, entry in spec.items():
        numbers = labelled(entry)
        assert numbers, key
        for number in numbers:
            assert number["label"] in {"paper", "fitted", "tuned", "assumed"}
            assert len(number["from"]) > 10


def test_a_fitted_number_tuned_to_the_density_is_called_tuned():
    assert "tuned to the paper's density: copula" in builtin_source("burstgpt").provenance
    assert "output_tokens lognormal sigma" in builtin_source("openvid").provenance
    assert "tuned" not in builtin_source("azure").provenance


def test_every_prompt_of_a_fitted_source_starts_with_its_system_prompt():
    w = load_workload("wildchat", num_requests=5000)
    system = round(0.19 * builtin_source("wildchat").prompt.mean)
    assert w.shared_tokens.tolist() == [system] * 5000
    assert w.prompt_tokens.min() == system + 1
    assert any("have the minimum length" in note for note in w.notes)


def test_caps_are_reported():
    w = load_workload("openvid", num_requests=20_000)
    at_cap = int((w.output_tokens == 122_880).sum())
    assert at_cap > 0
    assert f"openvid: outputs: {at_cap} of 20,000 cut to the cap of 122,880 tokens" in w.notes


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("num_requests", [2_000, 40_000])
def test_a_trace_reaches_its_target(name, num_requests):
    w = load_workload(name, num_requests=num_requests, seed=1)
    assert len(w) == num_requests
    assert pool_density(w) == pytest.approx(TRACES[name].density, rel=0.01)
    assert w.sharing_max == pytest.approx(TRACES[name].sharing, abs=0.003)
    assert w.source_names == ("burstgpt", "openvid", "mmlu")
    assert w.notes[0].startswith("mix of ")
    assert "synthetic lengths, fitted" in " ".join(w.notes)


def test_same_arguments_same_arrays_and_another_seed_others():
    a, b, c = (load_workload("trace1", num_requests=3000, seed=s) for s in (0, 0, 1))
    assert a.digest() == b.digest() != c.digest()
    assert a.source.tolist() == b.source.tolist()


def test_a_mix_is_shuffled():
    w = load_workload("trace1", num_requests=10_000)
    halves = np.bincount(w.source[:5000], minlength=3), np.bincount(w.source[5000:], minlength=3)
    assert halves[0][2] == pytest.approx(halves[1][2], rel=0.1)


def test_density_is_the_papers_formula():
    w = make_workload("w", [100, 300], [20, 50])
    work = 800.75 * 470 / (100 * 20 + 200 + 300 * 50 + 1250)
    assert pool_density(w) == pytest.approx(work, rel=1e-4)
    assert request_density(w)[0] == pytest.approx(800.75 * 120 / 2200, rel=1e-4)
    twice = DensityConstants(bandwidth=2 * 2.039e12)
    assert pool_density(w, twice) == pytest.approx(2 * work, rel=1e-4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MixSpec(1.4, 0.9), r"sharing: found 0\.9; expected 0\.008 to 0\.8\d\d, the range"),
        (MixSpec(1.4, 0.001), r"sharing: found 0\.001; expected 0\.008"),
        (MixSpec(100.0, 0.35), r"density: found 100; expected 0\.0\d+ to 1\d\.\d, the range"),
        (MixSpec(0.001, 0.35), r"density: found 0\.001; expected 0\.0\d+ to"),
        (MixSpec(0.0, 0.35), r"density: found 0\.0; expected more than 0"),
        (MixSpec(1.4, 1.0), r"sharing: found 1\.0; expected 0 <= sharing < 1"),
        (MixSpec(1.4, 0.35, sharing_source="openvid"), "sharing_source: found openvid"),
        (MixSpec(1.4, 0.35, "openvid", "burstgpt"), "memory_source: found burstgpt"),
        (MixSpec(1.4, 0.35, compute_source="burstgbt"), "did you mean 'burstgpt'"),
    ],
)
def test_an_impossible_target_says_which_part_and_what_is_possible(spec, message):
    with pytest.raises(InputError, match=message):
        load_mix(spec, num_requests=2000)


def test_a_target_between_two_sources_needs_no_third():
    # At the density of burstgpt with mmlu alone, no memory-intensive request is taken.
    alone = load_mix(MixSpec(17.9, 0.35), num_requests=20_000)
    assert np.bincount(alone.source, minlength=3)[1] <= 1
    assert alone.sharing_max == pytest.approx(0.35, abs=0.003)


def test_a_file_is_drawn_again_when_it_is_short_and_keeps_its_groups():
    rows = make_workload("tiny", [100, 40], [5, 6])
    source = FileSource(rows)
    rng = np.random.default_rng(0)
    assert sorted(source.draw(2, rng).prompt_tokens.tolist()) == [40, 100]
    drawn = source.draw(50, rng)
    assert set(drawn.prompt_tokens.tolist()) == {40, 100}
    assert source.report(drawn) == (
        "tiny: 50 requests drawn from 2, so some appear more than once",
    )
    sources = (source, builtin_source("openvid"), builtin_source("mmlu"))
    w = mix(MixSpec(1.4, 0.35), sources, num_requests=5000, rng=rng)
    assert pool_density(w) == pytest.approx(1.4, rel=0.01)
    assert any("so some appear more than once" in note for note in w.notes)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(InputError, match="did you mean 'trace1'"):
        load_workload("trace_1")
    with pytest.raises(InputError, match="did you mean 'trace3'"):
        trace("trac3")
    with pytest.raises(InputError, match="num_requests: found 0"):
        load_workload("trace1", num_requests=0)
    with pytest.raises(InputError, match="format: found 'azure'; expected none"):
        load_workload("trace1", ReaderOptions(format="azure"))
