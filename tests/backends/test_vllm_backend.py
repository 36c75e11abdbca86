"""The vLLM backend's refusals need no vLLM; the replays at the end do."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bssim.backends import replay
from bssim.backends.vllm import VllmBackend
from bssim.backends.vllm.scheduler import check_version
from bssim.errors import InputError
from bssim.sim.engine import load_preset
from bssim.sim.schedule import Schedule
from tests.conformance.compare import difference, simulated_rows, submitted
from tests.conformance.pools import grown

MODEL = Path(__file__).parents[2] / "configs" / "validate" / "tiny-llama"
KNOBS = {
    "block_size": 32,
    "num_gpu_blocks": 20,
    "max_num_batched_tokens": 128,
    "max_num_seqs": 8,
}
POOL = grown([(0, 70)], [(k % 2, 5 + 7 * k, 30 + 2 * k, 0) for k in range(14)])


def backend(**knobs: object) -> VllmBackend:
    return VllmBackend(
        MODEL,
        replace(load_preset("vllm"), **{**KNOBS, **knobs}),
        dummy_weights=True,
        dtype="float32",
        enforce_eager=True,
    )


def test_only_tested_releases_are_used_unless_told_otherwise():
    check_version("0.32.0")
    check_version("0.32.0+cpu")
    with pytest.raises(InputError, match=r"found version 0\.26\.0; expected 0\.25\.1 or 0\.32\.0"):
        check_version("0.26.0")
    check_version("0.26.0", allow_untested=True)


def test_requests_that_cannot_fit_are_refused_before_the_engine_starts():
    with pytest.raises(InputError, match=r"longest request has \d+ tokens.*max_model_len = 64"):
        backend(max_model_len=64).open(POOL)
    with pytest.raises(
        InputError,
        match=r"num_gpu_blocks: found 4; expected at least 8: requests of up to \d+ tokens",
    ):
        backend(num_gpu_blocks=4).open(POOL)


def test_a_vocabulary_too_small_for_the_sharing_is_refused(tmp_path: Path):
    config = json.loads((MODEL / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 64}))
    wide = grown([], [(0, 4, 1, 0)] * 100)
    with pytest.raises(InputError, match="vocab_size: found 64; expected at least 10"):
        replace(backend(), model=tmp_path).prompts(wide)


def test_a_missing_vllm_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match=r"vLLM cannot be imported.*pip install vllm"):
        backend().open(POOL)


def schedule() -> Schedule:
    n = len(POOL)
    return Schedule(
        workload=POOL.name,
        workload_digest=POOL.digest(),
        scheduler="fcfs",
        order=np.arange(n),
        replica=np.zeros(n, dtype=np.int32),
        estimated_output_tokens=np.ones(n),
    )


@pytest.mark.vllm
def test_the_real_engine_takes_the_simulated_steps(tmp_path: Path):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    result = replay(backend(), POOL, schedule(), tmp_path / "replay.json")
    assert result.complete
    assert result.preemptions > 0
    assert (
        difference(simulated_rows(POOL, KNOBS, submitted(POOL, KNOBS)), _rows(result.steps)) is None
    )
    assert result.output_tokens == int(POOL.output_tokens.sum())
    first = {}
    for row in result.steps:
        for name, tokens in row["cached"].items():
            first.setdefault(name, tokens)
    public = {row["request_id"]: row["cached_tokens"] for row in result.requests}
    assert public == first  # vLLM's public count of hits agrees with its scheduler's
    assert (result.step_s > 0).all()
    assert result.engine.num_gpu_blocks == KNOBS["num_gpu_blocks"]


@pytest.mark.vllm
def test_an_engine_that_cannot_start_says_why():
    pytest.importorskip("vllm", reason="vLLM is not installed")
    with pytest.raises(InputError, match=r"block_size: found 16; expected a multiple of 32"):
        backend(block_size=16, num_gpu_blocks=40).open(POOL)


def _rows(steps: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return rows of a replay as the simulator writes them."""
    ours = ("step", "scheduled", "cached", "preempted", "free_blocks", "finished")
    return [{key: row[key] for key in ours} for row in steps]
