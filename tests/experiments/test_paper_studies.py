"""The analytic and single-run studies of the paper, at small size, through their chapters."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.step_cost import StepCost
from bssim.experiments.plots import save
from bssim.experiments.result_pages import Chapter, Claim, Study, runner
from bssim.experiments.result_pages.registry import load_study
from bssim.experiments.result_pages.reproduction.blending import blending
from bssim.experiments.result_pages.reproduction.fig2 import Figure2
from bssim.experiments.result_pages.reproduction.fig4 import Figure4
from bssim.experiments.result_pages.reproduction.fig6 import Figure6, split_over_time
from bssim.experiments.result_pages.reproduction.intercepted import InterceptedScheduler
from bssim.experiments.result_pages.reproduction.scheduling import ANSWERS, Scheduling, TimedPool
from bssim.experiments.result_pages.reproduction.splitting import Splitting, neighbour_hits
from bssim.experiments.result_pages.reproduction.table1 import TABLE1
from bssim.experiments.result_pages.reproduction.table2 import Table2
from bssim.experiments.result_pages.reproduction.table4 import Table4
from bssim.experiments.sweeps import Results, WorkloadRef, build_workload
from bssim.sim.engine import load_preset
from bssim.sim.schedulers import make_scheduler
from bssim.sim.simulate import simulate
from bssim.sim.workload import PrefixTree, make_workload, published

SMALL = 4_000


def claims_of(chapter: Chapter) -> dict[str, Claim]:
    found = {claim.id: claim for claim in chapter.claims}
    assert len(found) == len(chapter.claims)
    return found


def drawn(chapter: Chapter, folder: Path) -> None:
    """Save every figure; each must have a caption and something in it."""
    assert set(chapter.captions) == set(chapter.figures)
    for stem, figure in chapter.figures.items():
        png, _ = save(figure, folder / stem)
        assert png.stat().st_size > 10_000


@pytest.mark.parametrize("study", [Figure2(SMALL), Figure4(SMALL), Table4(SMALL)])
def test_studies_of_sources_draw_them_again_the_same(study: Any, tmp_path: Path) -> None:
    chapter = study.chapter({}, False)
    drawn(chapter, tmp_path)
    assert study.chapter({}, False).claims == chapter.claims
    assert study.sweeps(False) == ()


def test_a_density_that_the_fit_was_tuned_to_is_said_to_show_nothing() -> None:
    for chapter in (Figure2(SMALL).chapter({}, False), Table4(SMALL).chapter({}, False)):
        notes = {
            claim.id.split(".")[1]: claim.note
            for claim in chapter.claims
            if claim.id.endswith(".density")
        }
        tuned = {name for name, note in notes.items() if note.startswith("validates nothing")}
        assert tuned == {"burstgpt", "openvid", "wildchat", "limo"} & set(notes)
        assert all(
            note.startswith("not tuned") for name, note in notes.items() if name not in tuned
        )


def test_the_papers_numbers_of_a_source_come_from_its_spec() -> None:
    assert published("mmlu").density == 54.91
    assert published("sharegpt").prompt_tokens_mean is None
    claims = claims_of(Table4(SMALL).chapter({}, False))
    assert claims["table4.mmlu.sharing"].paper == 0.86
    assert claims["table4.azure.density"].ratio == pytest.approx(1.0, abs=0.15)


def test_real_questions_are_described_only_where_their_lengths_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BSSIM_TRACES", raising=False)
    assert "not available" in Figure2(SMALL).chapter({}, False).text
    (tmp_path / "mmlu_5shot_llama3_lengths.csv").write_text(
        "subject,idx,prefix_tokens,question_tokens,input_tokens\n"
        "law,0,100,20,120\nlaw,1,100,40,140\n"
    )
    monkeypatch.setenv("BSSIM_TRACES", str(tmp_path))
    text = Figure2(SMALL).chapter({}, False).text
    assert "The 2 questions themselves" in text
    assert "130 tokens, sharing 0.385" in text  # 100 of 260 tokens


def test_figure_4_counts_memory_intensive_requests() -> None:
    claims = claims_of(Figure4(SMALL).chapter({}, False))
    assert claims["fig4.mmlu.memory_intensive"].ours == 0.0
    assert claims["fig4.openvid.memory_intensive"].ours > 0.95  # type: ignore[operator]


def test_figure_6_has_the_papers_example_and_a_split_that_adds_up(tmp_path: Path) -> None:
    study = Figure6(SMALL)
    chapter = study.chapter({}, False)
    drawn(chapter, tmp_path)
    claims = claims_of(chapter)
    # M (root - right) / (left - right)
    assert claims["fig6.example.left_gb"].ours == round(60 * 1.174 / 3.634, 2)
    assert claims["fig6.example.left_gb"].ratio == pytest.approx(1.0, abs=0.01)
    split = split_over_time(SMALL)
    whole = split["left_gb"] + split["right_gb"]
    assert np.allclose(whole, whole.iloc[0])
    assert (split["held_gb"] <= whole + 1e-9).all()
    assert split["waiting"].iloc[0]
    assert not split["waiting"].iloc[-1]
    assert (np.diff(split["hours"]) > 0).all()


def test_watching_a_policy_changes_nothing() -> None:
    llm, hardware = load_llm("llama-3-8b"), load_hardware("a100-80gb")
    steps: list[int] = []

    def watched(policy: Any) -> Mapping[str, Any]:
        def begin_step(engine: Any) -> None:
            steps.append(engine.step)
            policy.begin_step(engine)

        return {"begin_step": begin_step}

    plain, seen = (
        simulate(
            build_workload(WorkloadRef("trace1", SMALL, seed=0)),
            scheduler=scheduler,
            llm=llm,
            hardware=hardware,
            engine=load_preset("nanoflow"),
            cost_model=make_cost_model("paper", llm, hardware),
        )
        for scheduler in (
            "blendserve",
            InterceptedScheduler(make_scheduler("blendserve"), watched),
        )
    )
    assert seen.makespan_s == plain.makespan_s
    assert (seen.schedule.order == plain.schedule.order).all()
    assert seen.schedule.scheduler == "blendserve"
    assert steps
    assert steps == sorted(steps)


def test_table_1_errors_are_those_of_the_cost_models() -> None:
    claims = claims_of(TABLE1.chapter({}, False))
    peak = 2 * 8.03e9 * 512 / 312e12 / 32 * 1e3
    assert claims["table1.gemm.512.paper"].ours == pytest.approx(peak, rel=2e-3)
    attention = 512 * 1024 * 4096 / 2.039e12 * 1e3
    assert claims["table1.attention.512.paper"].ours == pytest.approx(attention, rel=2e-3)
    assert claims["table1.gemm.512.paper"].paper == 1.087
    for claim in claims.values():
        assert claim.ratio == pytest.approx(1.0, abs=0.25)


def test_table_2_says_what_traces_are_made_of() -> None:
    chapter = Table2(40_000).chapter({}, False)
    claims = claims_of(chapter)
    assert claims["table2.trace3.sharing"].ratio == pytest.approx(1.0, abs=0.02)
    assert claims["table2.trace4.density"].ratio == pytest.approx(1.0, abs=0.02)
    for trace in ("trace1", "trace4"):
        (line,) = (line for line in chapter.text.splitlines() if line.startswith(f"| {trace} |"))
        counts = [int(cell.replace(",", "")) for cell in line.split("|")[2:5]]
        assert sum(counts) == 40_000
    assert "do not know the content of the paper's Table 2" in chapter.text


def test_hits_between_neighbours() -> None:
    # root -> a (4 tokens) -> b (3 more); two requests at a, two at b, one at the root
    tree = PrefixTree(np.array([-1, 0, 1], np.int32), np.array([0, 4, 3], np.int64))
    pool = make_workload("w", [6, 9, 5, 7, 8], [1] * 5, tree=tree, node=[1, 2, 0, 2, 1])
    # a prompt that is all prefix computes its last token
    assert neighbour_hits(pool, np.array([1, 3, 0, 4, 2])) == 6 + 4 + 4
    assert neighbour_hits(pool, np.array([1, 2, 3, 0, 4])) == 0 + 0 + 4 + 4
    best = neighbour_hits(pool, pool.dfs_order)
    assert best == pool.max_cached_tokens.sum()


def test_splits_stay_within_the_sharing_they_may_cost() -> None:
    claims = claims_of(Splitting(SMALL).chapter({}, False))
    assert len(claims) == 8
    for name, claim in claims.items():
        if name.endswith("given_up"):
            assert claim.holds
            assert float(str(claim.ours).rstrip("%")) <= 1.0


def test_policy_calls_are_timed() -> None:
    pools = [TimedPool("trace1", 500), TimedPool(ANSWERS, 500)]
    claims = claims_of(Scheduling(SMALL, pools).chapter({}, False))
    assert set(claims) == {
        "scheduling.planning_s",
        *(
            f"scheduling.{s}.{pool.name}.{k}_ms"
            for s in ("blendserve", "ratio")
            for pool in pools
            for k in ("mean", "p99")
        ),
    }
    for claim in claims.values():
        assert isinstance(claim.ours, float)
        assert claim.ours > 0
        # one significant digit, for more would change with every run
        assert float(f"{claim.ours:.0e}") == claim.ours


def timeline(compute_s: list[float], memory_s: list[float], **columns: Any) -> pd.DataFrame:
    overlap = parse_overlap("perfect", load_hardware("a100-80gb").corun)
    steps = pd.DataFrame(
        {
            "compute_s": compute_s,
            "memory_s": memory_s,
            "communication_s": 0.0,
            "fixed_s": 0.0,
            "bandwidth_s": 0.0,
            "host_s": 0.0,
            "replica": 0,
            "steps": 10,
            "kv_tokens": 100.0,
            "prefill_tokens": 1.0,
        }
        | columns
    )
    cost = StepCost(
        **{f.name: steps[f.name].to_numpy() for f in fields(StepCost) if f.name in steps}
    )
    return steps.assign(step_s=overlap.step_seconds(cost))


def test_what_uneven_steps_lose() -> None:
    overlap = parse_overlap("perfect", load_hardware("a100-80gb").corun)
    level = blending(timeline([2.0, 4.0], [1.0, 2.0]), overlap, 100.0)
    assert (level.lost, level.near, level.full, level.drain) == (0.0, 1.0, 1.0, 0.0)
    # one resource, then the other: both could have been done at once
    apart = blending(
        timeline([3.0, 0.0], [0.0, 3.0], kv_tokens=[10.0, 100.0], prefill_tokens=[5.0, 0.0]),
        overlap,
        101.0,
    )
    assert apart.lost == pytest.approx(0.5)
    assert (apart.near, apart.full, apart.drain) == (0.0, 0.5, 0.5)
    # a run that never fills the cache is never without room
    assert blending(timeline([2.0], [1.0]), overlap, 200.0).full == 0.0


@contextmanager
def quiet(name: str) -> Any:
    yield SimpleNamespace(start=lambda due, reused: None, finished=lambda cell, row: None)


def small_configs(studies: list[Study], folder: Path, lengths: str) -> Path:
    """Write the sweep files of ``studies`` with one cost model and one estimator of several."""
    (folder / "paper").mkdir(parents=True)
    for file in {file for study in studies for file in study.sweeps(False)}:
        text = (runner.CONFIGS / file).read_text()
        for whole, part in (("[paper, roofline]", "paper"), ("[oracle, mean, mean_only]", lengths)):
            text = text.replace(whole, part)
        (folder / file).write_text(text)
    return folder


def test_replicas_and_splits_at_small_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies: list[Study] = [load_study(name) for name in ("table3", "fig8")]
    configs = small_configs(studies, tmp_path / "configs", lengths="oracle")
    monkeypatch.setattr(runner, "CONFIGS", configs)
    finished = runner.run_studies(studies, tmp_path / "r", num_requests=60, jobs=2, watch=quiet)
    assert all(one.failed.empty for one in finished)
    for one in finished:
        drawn(one.chapter, tmp_path / "figures")
    table3, fig8 = (claims_of(one.chapter) for one in finished)
    runs = Results(tmp_path / "r" / "fig8").read_runs()
    rate = runs[runs["workload"] == "trace2"].set_index("engine")["throughput_tok_s"]
    ours = fig8["fig8.trace2.1p2d"].ours
    assert ours == pytest.approx(rate["vllm-1P2D"] / 3 / rate["vllm"])
    assert fig8["fig8.trace2.1p2d"].holds == (ours <= 1)  # type: ignore[operator]
    assert len([name for name in fig8 if name.endswith(".1p3d")]) == 4
    assert 0 <= table3["table3.imbalance"].ours < 1  # type: ignore[operator]
    tokens_s = [table3[f"table3.trace1.dp{replicas}.tok_s"].ours for replicas in (1, 4)]
    speedup = table3["table3.trace1.dp4.speedup"]
    assert speedup.ours == pytest.approx(tokens_s[1] / tokens_s[0])  # type: ignore[operator]
    assert speedup.holds == (speedup.ours >= 3.7)  # type: ignore[operator]


def test_figures_of_the_four_traces_at_small_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies: list[Study] = [load_study(name) for name in ("fig3", "fig9", "fig10")]
    configs = small_configs(studies, tmp_path / "configs", lengths="mean")
    monkeypatch.setattr(runner, "CONFIGS", configs)
    finished = runner.run_studies(studies, tmp_path / "r", num_requests=200, jobs=2, watch=quiet)
    assert all(one.failed.empty for one in finished)
    for one in finished:
        drawn(one.chapter, tmp_path / "figures")
    fig3, fig9, fig10 = (claims_of(one.chapter) for one in finished)
    for claims in (fig3, fig10):
        for claim in claims.values():
            assert claim.paper is None
            assert 0 <= claim.ours < 1  # type: ignore[operator]
    runs = Results(tmp_path / "r" / "fig7a").read_runs()
    row = runs[
        (runs["workload"] == "trace2")
        & (runs["scheduler"] == "blendserve")
        & (runs["cost_model"] == "paper")
    ].iloc[0]
    reached = row["sharing"] / row["sharing_max"]
    assert fig9["fig9.trace2.lru.blendserve"].ours == f"{reached:.1%}"
    assert fig9["fig9.trace2.lru.blendserve"].holds == bool(reached >= 0.97)
    assert len(fig9) == 16
