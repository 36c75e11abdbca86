"""Figures: the numbers that are drawn, one colour a scheduler, the same bytes each time."""

import itertools
from collections.abc import Callable
from pathlib import Path

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from bssim.errors import InputError
from bssim.experiments.plots import (
    COMPUTE_COLOUR,
    MEMORY_COLOUR,
    SCHEDULER_COLOURS,
    draw_figures,
    grouped_bars,
    heatmaps,
    message_of,
    save,
    scheduler_colour,
    sharing_figure,
    speedup_figure,
    steps_figure,
    throughput_figure,
    workload_figure,
)
from bssim.experiments.sweeps import COLUMN_TYPES, Cell, Results, run_cell
from bssim.experiments.sweeps.row import failed_row
from bssim.experiments.sweeps.run_cell import CellOutcome
from bssim.sim.schedulers import scheduler_names, variant_names
from bssim.sim.workload import make_workload

RUNS = pd.DataFrame(
    {
        "workload": ["w1", "w1", "w2", "w2"],
        "scheduler": ["blendserve", "dfs", "blendserve", "dfs"],
        "throughput_tok_s": [9000.0, 7000.0, 6000.0, 5000.0],
        "optimum_tok_s": [10000.0, 10000.0, 8000.0, 8000.0],
        "share_of_bound": [0.5, 0.5, 0.5, 0.5],
        "sharing": [0.3, 0.35, 0.04, 0.05],
        "sharing_max": [0.35, 0.35, 0.05, 0.05],
    }
)


def timeline(points: int = 50) -> pd.DataFrame:
    start = np.linspace(0, 9000, points)
    others = ("step_s", "prefill_tokens", "decode_requests", "kv_tokens", "running")
    return pd.DataFrame(
        {"start_s": start, "compute_s": 0.02, "memory_s": start / 3e5, "replica": 0, "steps": 3}
    ).assign(**dict.fromkeys(others, 1.0))


def test_bars_have_the_heights_of_the_table_and_the_colours_of_the_schedulers() -> None:
    axes = throughput_figure(RUNS).axes[0]
    bars = [patch for patch in axes.patches if patch.get_height() > 0]
    assert [bar.get_height() for bar in bars] == [7.0, 5.0, 9.0, 6.0]  # dfs, then blendserve
    dfs, blendserve = (
        matplotlib.colors.to_rgba(scheduler_colour(s)) for s in ("dfs", "blendserve")
    )
    assert [bar.get_facecolor() for bar in bars] == [dfs, dfs, blendserve, blendserve]
    assert "1000 tokens/s" in axes.get_ylabel()
    lines = np.array([segment[0, 1] for segment in axes.collections[0].get_segments()])
    assert lines.tolist() == [10.0, 8.0]


def test_sharing_bars_are_in_per_cent() -> None:
    axes = sharing_figure(RUNS).axes[0]
    assert "(%)" in axes.get_ylabel()
    heights = [patch.get_height() for patch in axes.patches if patch.get_height() > 0]
    assert heights == pytest.approx([35, 5, 30, 4])


def test_a_limit_far_above_all_bars_is_named_and_not_drawn() -> None:
    """Small pools take their tail: bars would be short, and the bound would cross their values."""
    figure = throughput_figure(RUNS.assign(share_of_bound=0.9, optimum_tok_s=90000.0))
    assert message_of(figure).startswith(
        "blendserve is fastest in 2 of 2 workloads, 1.20x to 1.29x as fast as dfs; "
        "the practical optimum, 10.00x to 15.00x as high, is off scale"
    )
    assert figure.axes[0].get_ylim()[1] < 12
    texts = {text.get_text() for text in figure.legends[0].get_texts()}
    assert texts == {"dfs", "blendserve", "tightest bound"}


def test_no_line_crosses_the_value_of_a_short_bar() -> None:
    runs = RUNS.assign(
        throughput_tok_s=[9000.0, 7000.0, 400.0, 380.0],
        optimum_tok_s=[10000.0, 10000.0, 450.0, 450.0],
        share_of_bound=1.0,
    )
    axes = throughput_figure(runs).axes[0]
    assert [text.xy[1] for text in axes.texts] == [0, 0.45, 0, 0.45]


def test_orders_that_share_equally_are_not_told_apart() -> None:
    figure = sharing_figure(RUNS.assign(sharing=RUNS["sharing_max"]))
    assert message_of(figure).startswith("every order finds 100% of the largest possible sharing")


def test_several_seeds_are_a_mean_with_its_range() -> None:
    two = pd.concat([RUNS, RUNS.assign(throughput_tok_s=RUNS["throughput_tok_s"] + 1000)])
    axes = throughput_figure(two).axes[0]
    assert [p.get_height() for p in axes.patches if p.get_height() > 0] == [7.5, 5.5, 9.5, 6.5]
    ranges = axes.containers[1].lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in ranges] == [[7.0, 8.0], [5.0, 6.0]]


def test_a_workload_without_a_result_leaves_the_other_ranges() -> None:
    two = pd.concat([RUNS, RUNS.assign(throughput_tok_s=RUNS["throughput_tok_s"] + 1000)])
    axes = throughput_figure(two[(two["workload"] == "w1") | (two["scheduler"] == "dfs")]).axes[0]
    assert sum(isinstance(found, ErrorbarContainer) for found in axes.containers) == 2


def test_many_schedulers_have_a_legend_on_the_page_and_looks_of_their_own() -> None:
    names = [*scheduler_names(), *variant_names()]
    runs = pd.concat(RUNS[:1].assign(scheduler=name) for name in names)
    for workloads in (1, 3):
        frames = [runs.assign(workload=f"w{i}") for i in range(workloads)]
        figure = throughput_figure(pd.concat(frames))
        figure.draw_without_rendering()
        page, legend = figure.bbox, figure.legends[0].get_window_extent()
        assert page.x0 <= legend.x0 < legend.x1 <= page.x1
        assert legend.y1 <= page.y1
        axes = figure.axes[0]
        assert axes.get_window_extent().height > page.height / 3
        bars = [bar for bar in axes.patches if bar.get_height() > 0]
        looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in bars}
        assert len(looks) == len(names)


def test_of_many_sources_the_largest_are_named() -> None:
    source = np.repeat(np.arange(30), np.arange(30, 0, -1))
    names = [f"source-{i}" for i in range(30)]
    lengths = np.linspace(300, 480, len(source)).astype(int)
    pool = make_workload("x", lengths, lengths, source=source, source_names=names)
    figure = workload_figure(pool, np.linspace(1, 3, len(source)))
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [*names[:6], "24 others"]
    page, legend = figure.bbox, figure.legends[0].get_window_extent()
    assert page.x0 <= legend.x0 < legend.x1 <= page.x1
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [
                t for t in axis.get_ticklabels(which="both") if t.get_text() and t.get_visible()
            ]
            boxes = [label.get_window_extent() for label in labels]
            assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_the_smallest_bar_has_height() -> None:
    lengths = [10] * 50 + [1000] * 60
    pool = make_workload("x", lengths, lengths)
    for axes in workload_figure(pool, np.ones(110)).axes[:2]:
        assert axes.get_ylim()[0] < 1


def test_long_names_leave_room_for_the_bars() -> None:
    axes = throughput_figure(RUNS.assign(workload=RUNS["workload"] + "-" * 90 + "x")).axes[0]
    assert [label.get_text()[:2] for label in axes.get_xticklabels()] == ["w1", "w2"]
    axes.figure.draw_without_rendering()
    assert axes.get_window_extent().height > axes.figure.bbox.height / 3


def test_steps_have_a_panel_a_scheduler_in_hours() -> None:
    later = timeline().assign(start_s=timeline()["start_s"] * 2)
    figure = steps_figure({"blendserve": timeline(), "dfs": later}, "w1", conditions="on a GPU")
    heading = "w1: blendserve ends first, after 2.50 h, and dfs last, after 5.00 h. on a GPU"
    assert message_of(figure) == heading
    assert [axes.get_title("left") for axes in figure.axes] == ["dfs", "blendserve"]
    assert figure.axes[-1].get_xlabel() == "simulated time (h)"
    compute, memory = figure.axes[0].lines
    assert (compute.get_ydata() == 20.0).all()
    assert memory.get_ydata()[-1] == pytest.approx(30.0)


def test_steps_have_a_panel_for_each_kind_of_replica() -> None:
    two = pd.concat([timeline(), timeline().assign(replica=2, compute_s=0.05)])
    kinds = {"prefill replica": range(1), "decode replica": range(1, 3)}
    figure = steps_figure({"dfs": two}, "w1", kinds)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["dfs, prefill replica 1 of 1", "dfs, decode replica 2 of 2"]
    assert (figure.axes[1].lines[0].get_ydata() == 50.0).all()


def test_steps_of_all_schedulers_are_within_the_axes() -> None:
    longer = timeline().assign(start_s=timeline()["start_s"] * 3, compute_s=0.5)
    first, second = steps_figure({"dfs": timeline(), "blendserve": longer}, "w1").axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()
    assert second.get_xlim()[1] >= 7.5
    assert second.get_ylim()[1] >= 500


def test_equal_steps_are_drawn_once_and_a_spike_does_not_rescale_a_panel() -> None:
    spike = timeline(400)
    spike.loc[7, "compute_s"] = 5.0
    figure = steps_figure({"fcfs": timeline(400), "lpm": timeline(400), "dfs": spike}, "w1")
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["fcfs = lpm", "dfs (up to 5,000 ms)"]
    for axes in figure.axes:
        top = axes.get_ylim()[1]
        assert 30 < top < 60
        assert all(line.get_ydata().max() <= top for line in axes.lines)


def test_figures_say_what_they_show_and_under_which_conditions() -> None:
    runs = RUNS.assign(model="llama", hardware="a100", dp=2, tp=4, engine="vllm", seed=0)
    runs = runs.assign(overlap="sequential", cost_model="roofline", num_requests=5000)
    conditions = "llama on 8 x a100, vllm, sequential overlap, roofline cost model, 5,000 requests"
    fast = "blendserve is fastest in 2 of 2 workloads, 1.20x to 1.29x as fast as dfs"
    assert message_of(throughput_figure(runs)) == f"{fast}. {conditions}"
    shared = "dfs finds 100% of the largest possible sharing, blendserve 80% to 86%"
    assert message_of(sharing_figure(RUNS)) == shared
    two = pd.concat([runs, runs.assign(seed=1, engine="sglang")])
    assert "vllm/sglang" in message_of(throughput_figure(two))
    assert message_of(throughput_figure(two)).endswith("mean of 2 seeds")


def test_bars_show_their_values_and_fit_the_frame() -> None:
    tall = pd.DataFrame({"dfs": [7.0, 150.0]}, index=["w1", "w2"])
    figure = grouped_bars({"a": tall / 20, "b": tall}, {"dfs": "#000000"}, "rate")
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [["0.35", "7.50"], ["7.00", "150.0"]]
    for axes in figure.axes:
        assert axes.get_ylim()[1] >= 150


def test_an_outlier_does_not_decide_the_colours_of_a_heat_map() -> None:
    grid = pd.DataFrame(np.linspace(1.0, 1.2, 12).reshape(3, 4))
    grid.iloc[0, 0] = 9.0
    axes, bar = heatmaps({"dfs": grid, "fcfs": grid}, "a", "b").axes
    assert axes.get_title() == "dfs = fcfs"
    assert axes.images[0].get_clim() == pytest.approx((1.0 + 0.2 / 11, 1.2))
    assert axes.texts[0].get_text() == "9.00"
    assert bar.get_ylabel() == "speed-up"


def test_the_replica_that_is_drawn_is_named(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, list[str]] = {}

    def keep(figure: Figure, stem: Path) -> list[Path]:
        drawn[stem.name] = [axes.get_title("left") for axes in figure.axes]
        return []

    monkeypatch.setattr("bssim.experiments.plots.sweep_figures.save", keep)
    text = "workloads: trace1\nschedulers: dfs\nnum_requests: 60\nengine: vllm\n"
    for i, (field, titles) in enumerate(
        {
            "dp: 2": ["dfs, replica 1 of 2"],
            "dp: 1": ["dfs"],
            "disaggregation: 1P2D": ["dfs, prefill replica 1 of 1", "dfs, decode replica 1 of 2"],
        }.items()
    ):
        (cell,) = cells_of(text + field)
        results = Results(tmp_path / str(i))
        results.save(cell, run_cell(cell, timeline=True))
        results.write_runs([cell])
        draw_figures(results)
        assert [title.partition(" (up to")[0] for title in drawn["steps-trace1"]] == titles


def test_the_heat_map_holds_the_speed_ups() -> None:
    rows = [
        {"a": a, "b": b, "scheduler": s, "throughput_tok_s": f}
        for (a, b), (s, f) in itertools.product(
            itertools.product((0.8, 0.9), (1, 2, 3)), (("dfs", 100.0), ("blendserve", 120.0))
        )
    ]
    figure = speedup_figure(pd.DataFrame(rows), "a", "b", "dfs")
    axes = figure.axes[0]
    assert np.array_equal(axes.images[0].get_array(), np.full((2, 3), 1.2))
    assert {text.get_text() for text in axes.texts} == {"1.20"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.8", "0.9"]


def test_a_hole_in_the_grid_stays_empty() -> None:
    rows = [(0.8, 1, "dfs", 1.0), (0.8, 1, "lpm", 1.5), (0.9, 2, "dfs", 1.0), (0.9, 2, "lpm", 2.0)]
    frame = pd.DataFrame(rows, columns=["a", "b", "scheduler", "throughput_tok_s"])
    texts = speedup_figure(frame, "a", "b", "dfs").axes[0].texts
    found = {t.get_position(): t.get_text() for t in texts}
    assert found == {(0, 0): "1.50", (1, 1): "2.00"}


def test_a_null_of_an_axis_is_a_line_of_the_heat_map() -> None:
    rows = [
        {"a": a, "b": b, "scheduler": s, "throughput_tok_s": f * b}
        for a in (8192, None)
        for b in (1, 2)
        for s, f in (("dfs", 100.0), ("lpm", 100.0 + (a is None)))
    ]
    axes, bar = speedup_figure(pd.DataFrame(rows), "a", "b", "dfs").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["8192", "null"]
    assert [text.get_text() for text in axes.texts] == ["1.00", "1.00", "1.01", "1.01"]
    bar.figure.draw_without_rendering()
    assert bar.yaxis.get_offset_text().get_text() == ""


def test_no_two_meanings_share_a_colour() -> None:
    colours = [*SCHEDULER_COLOURS.values(), COMPUTE_COLOUR, MEMORY_COLOUR]
    assert len(set(colours)) == len(colours)


def test_the_same_figure_is_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        [path.read_bytes() for path in save(throughput_figure(RUNS), tmp_path / name)]
        for name in ("first", "second")
    )
    assert first == second


def finished(cell: Cell, throughput: float) -> CellOutcome:
    numbers = {column: 1 for column, kind in COLUMN_TYPES.items() if kind != "string"}
    row = failed_row(cell.identity(), "", status="ok")
    identity = {k: v for k, v in row.items() if v is not None}
    return CellOutcome(
        row=numbers
        | identity
        | {"throughput_tok_s": throughput, "optimum_tok_s": 5.0, "error": ""},
        timeline=timeline(),
    )


def stored(cells: list[Cell], folder: Path) -> Results:
    results = Results(folder)
    for i, cell in enumerate(cells):
        results.save(cell, finished(cell, 1.0 + i % 3))
    results.write_runs(cells)
    return results


def test_a_results_folder_gets_bars_steps_and_no_heat_map(
    small_cells: list[Cell], tmp_path: Path
) -> None:
    paths = draw_figures(stored(small_cells, tmp_path))
    assert {path.name for path in paths} == {
        f"{stem}.{kind}"
        for stem in ("throughput", "sharing", "steps-trace1", "steps-trace3")
        for kind in ("png", "pdf")
    }
    assert all(path.stat().st_size > 1000 for path in paths)


def test_a_two_dimensional_grid_gets_a_heat_map(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    cells = cells_of(
        "workloads: {mix: {density: [0.9, 1.1], sharing_target: [0.1, 0.2]}}\n"
        "schedulers: [dfs, blendserve]\n"
    )
    names = {path.name for path in draw_figures(stored(cells, tmp_path))}
    assert "speedup-over-dfs.png" in names


def test_each_workload_and_each_setting_beside_the_axes_gets_a_heat_map(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    cells = cells_of(
        "workloads: [trace1, trace2]\nschedulers: [dfs, blendserve]\n"
        "models: [llama-3-8b, qwen-2.5-7b]\n"
        "engine: {max_num_seqs: [8, 16], max_num_batched_tokens: [512, 1024]}\n"
    )
    names = {path.name for path in draw_figures(stored(cells, tmp_path))}
    assert {name for name in names if name.startswith("speedup") and name.endswith("png")} == {
        f"speedup-over-dfs-{workload}-{model}.png"
        for workload in ("trace1", "trace2")
        for model in ("llama-3-8b", "qwen-2.5-7b")
    }


def test_presets_that_differ_in_two_numbers_are_no_grid(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    cells = cells_of("workloads: trace1\nschedulers: [dfs, fcfs]\nengine: [vllm, sglang]\n")
    names = [path.name for path in draw_figures(stored(cells, tmp_path))]
    assert not [name for name in names if name.startswith("speedup")]
    knobs = [{"preset": "vllm", "max_num_seqs": 8 * i, "block_size": i} for i in (1, 2)]
    cells = cells_of(f"workloads: trace1\nschedulers: [dfs, fcfs]\nengines: {knobs}\n")
    names = [path.name for path in draw_figures(stored(cells, tmp_path / "knobs"))]
    assert not [name for name in names if name.startswith("speedup")]


def test_a_number_that_runs_csv_has_too_can_be_an_axis(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    cells = cells_of(
        "workloads: trace1\nschedulers: [dfs, blendserve]\ndp: [1, 2]\n"
        "engine: {max_num_seqs: [8, 16]}\n"
    )
    names = {path.name for path in draw_figures(stored(cells, tmp_path))}
    assert "speedup-over-dfs.png" in names


def test_engine_knobs_make_settings_of_their_own(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    cells = cells_of(
        "workloads: trace1\nschedulers: dfs\nengine: {preset: vllm, max_num_seqs: [8, 16]}\n"
    )
    names = [path.name for path in draw_figures(stored(cells, tmp_path))]
    for knob in ("max_num_seqs=8", "max_num_seqs=16"):
        assert sum(knob in name and name.startswith("throughput") for name in names) == 2
    assert "max_num_seqs=16" in (tmp_path / "summary.md").read_text()


def test_schedulers_without_a_common_seed_get_no_bars(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    cells = cells_of("workloads: trace1\nschedulers: [dfs, fcfs]\nseeds: [0, 1]\n")
    results = stored(cells, tmp_path)
    apart = [cell for cell in cells if (cell.scheduler == "dfs") == (cell.seed == 0)]
    results.write_runs(apart)
    assert not [path for path in draw_figures(results) if path.name.startswith("throughput")]


def test_sizes_of_one_workload_are_settings(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    cells = cells_of("workloads: trace1\nschedulers: dfs\nnum_requests: [100, 4000, null]\n")
    stored(cells, tmp_path)
    headings = [t for t in (tmp_path / "summary.md").read_text().split("\n") if t[:3] == "## "]
    ends = ["100 requests", "4,000 requests", "all requests"]
    assert [heading.rpartition(" overlap, ")[2] for heading in headings] == ends


def test_sizes_of_several_workloads_are_none(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    text = "schedulers: dfs\nworkloads: [{source: trace1, num_requests: 9}, trace2]\n"
    stored(cells_of(text), tmp_path)
    assert (tmp_path / "summary.md").read_text().count("\n## ") == 1


def test_a_null_knob_is_called_null_and_its_neighbours_stay_whole(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    knobs = "engine: {max_model_len: [null, 8192]}\n"
    stored(cells_of(f"workloads: trace1\nschedulers: dfs\n{knobs}"), tmp_path)
    summary = (tmp_path / "summary.md").read_text()
    assert "max_model_len=null\n" in summary
    assert "max_model_len=8192\n" in summary


def test_long_names_of_figures_are_cut_and_told_apart(
    cells_of: Callable[[str], list[Cell]], tmp_path: Path
) -> None:
    text = "schedulers: dfs\nworkloads:\n"
    for last in "ab":
        text += f"- {{source: trace1, num_requests: 9, name: {'ü' * 70}{last}}}\n"
    paths = draw_figures(stored(cells_of(text), tmp_path))
    steps = {path.name for path in paths if path.name.startswith("steps-ü")}
    assert len(steps) == 4  # two workloads, png and pdf
    assert all(len(name.encode()) < 140 for name in steps)


def test_nothing_finished_is_an_error(small_cells: list[Cell], tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.write_runs(small_cells)
    with pytest.raises(InputError, match="found no finished cell"):
        draw_figures(results)
