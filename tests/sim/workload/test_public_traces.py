"""The public traces, where BSSIM_TRACES names their folder: the figures measured on all rows."""

import os
from pathlib import Path

import numpy as np
import pytest

from bssim.sim.workload import MixSpec, builtin_source, load_mix, load_workload, pool_density
from bssim.sim.workload.readers import ReaderOptions

pytestmark = pytest.mark.traces


@pytest.fixture
def traces() -> Path:
    folder = os.environ.get("BSSIM_TRACES")
    if not folder:
        pytest.skip("BSSIM_TRACES does not name a folder with the public traces")
    return Path(folder)


@pytest.mark.parametrize(
    ("file", "rows", "prompt", "output", "sharing", "density"),
    [
        ("azure2023_code.csv", 8_819, 2048, 27.9, 0.0, 27.97),
        ("azure2023_conv.csv", 19_366, 1155, 211, 0.0, 4.22),
        ("nanoflow_sharegpt.csv", 58_787, 299, 324, 0.0, 2.48 / 0.98),
        ("mooncake_conversation.jsonl", 12_031, 12035, 343, 0.374, 1.38),
        ("mmlu_5shot_llama3_lengths.csv", 14_079, 676, 2, 0.843, 62.8),
    ],
)
def test_measured_figures(traces, file, rows, prompt, output, sharing, density):
    w = load_workload(traces / file)
    assert len(w) == rows
    assert w.prompt_tokens.mean() == pytest.approx(prompt, abs=0.5)
    assert w.output_tokens.mean() == pytest.approx(output, abs=0.5)
    assert w.sharing_max == pytest.approx(sharing, abs=0.0005)
    assert pool_density(w) == pytest.approx(density, rel=0.002)


def test_table_4_rows_that_public_data_allows(traces):
    mmlu = load_workload(traces / "mmlu_5shot_llama3_lengths.csv")
    assert mmlu.sharing_max == pytest.approx(0.86, rel=0.03)
    assert pool_density(mmlu) == pytest.approx(54.91, rel=0.15)
    sharegpt = load_workload(traces / "nanoflow_sharegpt.csv")
    assert pool_density(sharegpt) * (1 - 0.02) == pytest.approx(3.12, rel=0.25)


def test_our_own_fits_follow_the_files_they_were_made_from(traces):
    for name, file in (
        ("sharegpt", "nanoflow_sharegpt.csv"),
        ("mmlu", "mmlu_5shot_llama3_lengths.csv"),
    ):
        real = load_workload(
            traces / file, ReaderOptions(max_prompt_tokens=32_768, max_output_tokens=8_192)
        )
        fit = builtin_source(name).draw(200_000, np.random.default_rng(0))
        levels = (0.25, 0.5, 0.75, 0.9, 0.99)
        for have, want in (
            (fit.prompt_tokens, real.prompt_tokens),
            (fit.output_tokens, real.output_tokens),
        ):
            assert have.mean() == pytest.approx(want.mean(), rel=0.03)
            assert np.quantile(have, levels) == pytest.approx(np.quantile(want, levels), rel=0.08)


def test_files_mix_to_a_target(traces):
    spec = MixSpec(
        1.4,
        0.3,
        compute_source=str(traces / "azure2023_code.csv"),
        sharing_source=str(traces / "mooncake_conversation.jsonl"),
    )
    w = load_mix(spec, num_requests=20_000)
    assert pool_density(w) == pytest.approx(1.4, rel=0.01)
    assert w.sharing_max == pytest.approx(0.3, abs=0.003)
    assert any("some appear more than once" in note for note in w.notes)
