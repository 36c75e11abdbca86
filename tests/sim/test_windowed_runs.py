"""Whole runs of models with windows: what the engine sums is what its requests see."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import AttentionGroup, Kind, LLMSpec, load_llm
from bssim.cost_models.paper import PaperCostModel
from bssim.cost_models.registry import make_cost_model
from bssim.sim.engine import load_preset
from bssim.sim.result import SimulationResult
from bssim.sim.schedulers import scheduler_names
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload
from tests.sim.harness import HARDWARE, LLM, engine, unshared
from tests.sim.test_invariants import MANY, engines, pools


def with_window(kind: Kind, window: int) -> LLMSpec:
    """Return Llama-3-8B with a window in 24 of its 32 layers."""
    groups = (AttentionGroup(24, 32, 8, 128, kind, window), AttentionGroup(8, 32, 8, 128))
    return replace(LLM, attention_layers=groups)


def run(
    workload: Workload,
    llm: LLMSpec,
    scheduler: str = "fcfs",
    on_step: Callable[[dict[str, Any]], None] | None = None,
    disaggregation: str | None = None,
    **knobs: Any,
) -> SimulationResult:
    lengths = knobs.pop("output_lengths", "oracle")
    return simulate(
        workload,
        scheduler=scheduler,
        llm=llm,
        hardware=HARDWARE,
        engine=engine(**knobs),
        cost_model=PaperCostModel(llm, HARDWARE),
        output_lengths=lengths,
        record_timeline=True,
        on_step=on_step,
        disaggregation=disaggregation,
    )


WINDOWS = st.builds(with_window, st.sampled_from(["sliding", "chunked"]), st.integers(1, 12))


@MANY
@given(pools(), st.sampled_from(scheduler_names()), WINDOWS, st.data())
def test_every_step_sees_what_its_requests_see(
    workload: Workload, scheduler: str, llm: LLMSpec, data: Any
) -> None:
    rows: list[dict[str, Any]] = []
    result = run(workload, llm, scheduler, rows.append, **data.draw(engines(workload)))
    group = llm.windowed
    assert group is not None
    computed: dict[str, int] = {}
    expected = []
    for row in rows:
        computed |= row["cached"]
        expected.append(0)
        for request, tokens in row["scheduled"].items():
            expected[-1] += group.visible_pairs(tokens, computed[request])
            computed[request] += tokens
    work = result.timelines[0].work
    found = work.window_decode_tokens + work.decode_requests + work.window_attention_pairs
    np.testing.assert_array_equal(found, expected)


@MANY
@given(pools(), st.sampled_from(scheduler_names()), st.data())
def test_a_window_over_everything_changes_nothing(
    workload: Workload, scheduler: str, data: Any
) -> None:
    result = run(workload, with_window("sliding", 500), scheduler, **data.draw(engines(workload)))
    for timeline in result.timelines:
        work = timeline.work
        np.testing.assert_array_equal(work.window_decode_tokens, work.decode_context_tokens)
        np.testing.assert_array_equal(
            work.window_prefill_context_tokens, work.prefill_context_tokens
        )
        np.testing.assert_array_equal(work.window_attention_pairs, work.prefill_attention_pairs)


def test_prefill_and_decode_replicas_sum_their_windows() -> None:
    pool = unshared([30, 50, 20, 40], [9, 7, 30, 3])
    whole = run(pool, with_window("sliding", 500), kv=300, disaggregation="1P1D")
    cut = run(pool, with_window("sliding", 16), kv=300, disaggregation="1P1D")
    for timeline in whole.timelines:
        work = timeline.work
        np.testing.assert_array_equal(work.window_decode_tokens, work.decode_context_tokens)
        np.testing.assert_array_equal(work.window_attention_pairs, work.prefill_attention_pairs)
    seen = sum(float(np.sum(t.work.window_decode_tokens)) for t in cut.timelines)
    read = sum(float(np.sum(t.work.decode_requests)) for t in cut.timelines)
    assert seen == 15 * read


def test_runs_of_models_with_windows_say_so_and_stay_above_their_bounds() -> None:
    h100, preset = load_hardware("h100-sxm"), load_preset("vllm")
    llm = load_llm(Path(__file__).parents[1] / "data" / "configs" / "gpt-oss-20b.json")
    pool = unshared([700] * 40, [300] * 40)
    for name in ("paper", "roofline"):
        result = simulate(
            pool,
            scheduler="fcfs",
            llm=llm,
            hardware=h100,
            engine=preset,
            cost_model=make_cost_model(name, llm, h100),
        )
        assert any("sliding attention over 128 tokens" in note for note in result.notes)
        assert result.share_of_bound <= 1
