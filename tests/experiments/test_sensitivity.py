"""The page that says how much speed-ups depend on cost model and overlap."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bssim.errors import InputError
from bssim.experiments.result_pages.sensitivity import main, page, speedups, widest
from bssim.experiments.sweeps import COLUMNS, Cell, Results, expand, read_sweep_file, run_cell
from bssim.experiments.sweeps.store import as_frame

CONFIG = Path(__file__).parents[2] / "configs" / "sensitivity" / "speedup.yaml"
GAINS = {
    ("paper", "sequential"): (1.0, 1.1),
    ("paper", "perfect"): (1.2, 1.5),
    ("roofline", "sequential"): (1.0, 1.05),
    ("roofline", "perfect"): (1.1, 1.3),
}


def runs(gains: dict[tuple[str, str], tuple[float, float]] = GAINS) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for (cost_model, overlap), values in gains.items():
        for workload, gain in zip(("trace2", "trace1"), values, strict=True):
            for scheduler, throughput in (("dfs", 2000.0), ("blendserve", 2000.0 * gain)):
                values_of = {
                    "workload": workload,
                    "scheduler": scheduler,
                    "cost_model": cost_model,
                    "overlap": overlap,
                    "throughput_tok_s": throughput,
                    "num_requests": 400_000,
                    "seed": 0,
                    "model": "llama-3-8b",
                    "status": "ok",
                }
                rows.append(dict.fromkeys(COLUMNS) | values_of)
    return as_frame(rows)


def test_speed_ups_by_setting_and_trace_in_the_order_of_the_sweep() -> None:
    table = speedups(runs())
    assert list(table.columns) == ["trace2", "trace1"]
    assert list(table.index) == list(GAINS)
    for setting, values in GAINS.items():
        assert table.loc[setting].tolist() == pytest.approx(list(values))


def test_the_page_names_what_moves_most() -> None:
    table = speedups(runs())
    assert widest(table, "cost_model") == (
        "0.200 (trace1, perfect: 1.300x with roofline, 1.500x with paper)"
    )
    assert widest(table, "overlap").startswith("0.400 (trace1, paper: 1.100x with sequential")
    text = page(runs(), "figures/x.png")
    assert "| roofline | perfect | 1.100x | 1.300x | 1.200x |" in text
    assert "400,000 requests a trace, llama-3-8b" in text
    assert "not to be quoted" not in text
    assert "(figures/x.png)" in text


def test_runs_without_a_result_are_left_blank_and_named() -> None:
    table = runs()
    table.loc[table["cost_model"] == "paper", ["status", "error"]] = ["failed", "no tables"]
    text = page(table.assign(num_requests=2000), "figures/x.png")
    assert "| paper | perfect |  |  |  |" in text
    assert "8 of 16 runs have no result; the first is trace2, dfs, paper: no tables" in text
    assert "not to be quoted" in text


def test_a_sweep_of_something_else_is_refused() -> None:
    twice = pd.concat([runs(), runs()], ignore_index=True)
    with pytest.raises(InputError, match="several runs of paper, sequential, trace2, dfs"):
        speedups(twice)
    one = runs()
    with pytest.raises(InputError, match="no finished run of blendserve"):
        speedups(one[one["scheduler"] == "dfs"])
    with pytest.raises(InputError, match="expected RESULTS"):
        main([])


def test_the_sweep_that_ships_is_four_traces_under_every_setting() -> None:
    cells = expand(read_sweep_file(CONFIG))
    assert {c.workload.num_requests for c in cells} == {400_000}
    settings = {(c.cost_model, c.engine.overlap) for c in cells}
    assert len(settings) == 18
    assert len(cells) == 18 * 4 * 2


def test_from_a_results_folder_to_a_page_with_its_figure(
    tmp_path: Path, cells_of: Callable[[str], list[Cell]]
) -> None:
    cells = cells_of(
        "workloads: trace1\nschedulers: [dfs, blendserve]\nnum_requests: 200\n"
        "cost_models: [paper, roofline]\noverlap: [sequential, perfect]\n"
    )
    results = Results(tmp_path / "results")
    for cell in cells:
        results.save(cell, run_cell(cell))
    results.write_runs(cells)
    target = tmp_path / "docs" / "page.md"
    main([str(tmp_path / "results"), str(target)])
    assert target.read_text().count("x |") == 8
    assert (tmp_path / "docs/figures/page.png").stat().st_size > 10_000
