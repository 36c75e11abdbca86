"""summary.md and the table of runs: what a person reads, and what tools read back."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bssim.errors import InputError
from bssim.experiments.sweeps import COLUMN_TYPES, COLUMNS, OVERLAP_NOTE, Results, records
from bssim.experiments.sweeps.store import as_frame
from bssim.experiments.sweeps.summary import summary_markdown

DESIGN_COLUMNS = (
    "config, workload, scheduler, model, hardware, engine, overlap, dp, tp, seed, num_requests, "
    "prompt_tokens, output_tokens, density, sharing_max, sharing, makespan_s, throughput_tok_s, "
    "optimum_tok_s, share_of_optimum, share_of_bound, compute_s, memory_s, steps, preemptions, "
    "recomputed_tokens, peak_kv_tokens, plan_wall_s, sim_wall_s, cost_model, output_lengths, "
    "bssim_version, config_hash, status, error"
)


def run(scheduler: str, throughput: float, **other: Any) -> dict[str, Any]:
    text = {c: "x" for c, kind in COLUMN_TYPES.items() if kind == "string"}
    numbers = {c: 1 for c, kind in COLUMN_TYPES.items() if kind != "string"}
    row = text | numbers | {"config": "demo", "workload": "w1", "scheduler": scheduler}
    row |= {"throughput_tok_s": throughput, "optimum_tok_s": 2000.0, "sharing_max": 0.5}
    row |= {"share_of_optimum": throughput / 2000, "share_of_bound": throughput / 1600}
    row |= {"sharing": 0.25, "overlap": "sequential", "tail_share": 0.05}
    row |= {
        "status": "ok",
        "error": "",
        "config_hash": f"{scheduler}{throughput}".replace(".", "_"),
    }
    return row | other


def summary(rows: list[dict[str, Any]], notes: dict[str, tuple[str, ...]] | None = None) -> str:
    frame = as_frame(rows)
    return summary_markdown(frame, dict.fromkeys(frame["config_hash"], "setting"), notes or {})


def test_the_columns_are_those_that_tools_read() -> None:
    later = "dtype, quantization, kv_cache_dtype, pp, tail_share, throughput_without_tail_tok_s"
    assert ", ".join(COLUMNS) == f"{DESIGN_COLUMNS}, {later}"


def test_tables_have_the_best_scheduler_first_and_the_speed_ups() -> None:
    text = summary([run("fcfs", 800.0), run("dfs", 1000.0), run("blendserve", 1250.0)])
    assert "| workload | blendserve | dfs | fcfs | optimum |" in text
    assert "| w1 | 1,250 | 1,000 | 800 | 2,000 |" in text
    over_dfs = text.partition("### Speed-up over dfs")[2]
    assert "| workload | blendserve | fcfs |\n|---|---:|---:|\n| w1 | 1.250x | 0.800x |" in over_dfs
    over_fcfs = text.partition("### Speed-up over fcfs")[2]
    assert "| w1 | 1.562x | 1.250x |" in over_fcfs
    of_bound, of_optimum = text.partition("Share of the practical optimum")[::2]
    assert "| w1 | 78.1% | 62.5% | 50.0% |" in of_bound.partition("lower bound")[2]
    assert "| w1 | 62.5% | 50.0% | 40.0% |" in of_optimum
    assert "| w1 | 25.0% | 25.0% | 25.0% | 50.0% |" in text


def test_seeds_are_averaged_and_unlike_workloads_are_not() -> None:
    text = summary(
        [
            run("dfs", 900.0, seed=0),
            run("dfs", 1100.0, seed=1),
            run("dfs", 2000.0, workload="w2"),
        ]
    )
    assert "| w1 | 1,000 | 2,000 |" in text
    assert "mean* |" not in text


def test_speed_ups_over_several_workloads_have_a_geometric_mean() -> None:
    text = summary(
        [
            run("dfs", 400.0),
            run("fcfs", 100.0),
            run("dfs", 900.0, workload="w2"),
            run("fcfs", 900.0, workload="w2"),
        ]
    )
    assert "| *geometric mean* | 2.000x |" in text


def test_the_summary_starts_with_the_answer() -> None:
    text = summary(
        [
            run("fcfs", 800.0),
            run("ratio", 1200.0),
            run("fcfs", 1000.0, workload="w2"),
            run("ratio", 500.0, workload="w2"),
        ]
    )
    assert text.splitlines()[2] == (
        "The fastest order is `ratio` in 1 of 2 cases, `fcfs` in 1, and 1.225x as fast as `fcfs` "
        "(1.000x to 1.500x); means are geometric."
    )
    assert "| w1 | ratio | 1,200 | 1.500x | 75.0% | 60.0% |" in text
    assert "nothing to compare" in summary([run("dfs", 1.0)])
    tie = summary([run("fcfs", 1000.0), run("dfs", 1000.5), run("ratio", 500.0)])
    assert tie.splitlines()[2].endswith(" Another order is within 0.1% of it.")


def test_only_seeds_that_all_schedulers_have_are_averaged() -> None:
    text = summary(
        [
            run("dfs", 1000.0, seed=0, optimum_tok_s=1500.0),
            run("dfs", 3000.0, seed=1, optimum_tok_s=4000.0),
            run("fcfs", 500.0, seed=0, optimum_tok_s=1500.0),
            run("fcfs", 0.0, seed=1, status="failed"),
        ]
    )
    assert "| w1 | 1,000 | 500 | 1,500 |" in text
    assert "| w1 | 2.000x |" in text
    assert "- `w1`: without seed 1, which lacks `fcfs`" in text
    assert "Seeds are missing" not in summary([run("dfs", 1.0), run("fcfs", 1.0)])


def test_a_scheduler_without_any_result_is_a_dash() -> None:
    lpm = run("lpm", 0.0, status="failed")
    rows = [run("dfs", 900.0, seed=0), run("dfs", 1100.0, seed=1), lpm, lpm | {"seed": 0}]
    text = summary(rows)
    assert "| workload | dfs | lpm | optimum |" in text
    assert "| w1 | 1,000 | - | 2,000 |" in text
    assert "Seeds are missing" not in text


def test_schedulers_without_a_common_seed_are_not_compared() -> None:
    text = summary([run("dfs", 1000.0, seed=0), run("fcfs", 500.0, seed=1)])
    assert "| w1 | - | - | - |" in text


def test_overlapped_results_are_labelled_simulated_only() -> None:
    assert OVERLAP_NOTE not in summary([run("dfs", 1.0)])
    assert OVERLAP_NOTE in summary([run("dfs", 1.0, overlap="frontier")])


def test_a_long_tail_is_in_the_answer() -> None:
    tail = {"tail_share": 0.424, "throughput_without_tail_tok_s": 11508.0}
    text = summary([run("fcfs", 800.0), run("ratio", 1200.0, **tail)])
    assert "takes 42% of the fastest order's makespan; without it, the rate is 11,508" in text
    assert "| w1 | 42.4% | 5.0% |" in text.partition("in the tail")[2]
    several = summary(
        [
            run("fcfs", 800.0),
            run("dfs", 900.0),
            run("dfs", 5.0, workload="w2"),
            run("fcfs", 9.0, workload="w2", **tail),
        ]
    )
    assert "makespan in 1 of 2 cases" in several
    assert "tail" not in summary([run("fcfs", 800.0), run("dfs", 900.0, tail_share=None)])


def test_cells_without_a_result_are_listed_with_their_error() -> None:
    text = summary([run("dfs", 1.0), run("lpm", 1.0, status="failed", error="no room")])
    assert "2 cells: 1 ok, 1 failed." in text
    assert "- `w1` / `lpm` (failed, `lpm1_0`): no room" in text


def test_notes_are_repeated() -> None:
    assert "- `w1`: capped 3 prompts" in summary([run("dfs", 1.0)], {"`w1`": ("capped 3 prompts",)})


def test_runs_csv_reads_back_as_written(tmp_path: Path) -> None:
    rows = [
        run("dfs", 1234.5678901234567),
        dict.fromkeys(COLUMNS)
        | {"scheduler": "NA", "config_hash": "b", "status": "failed", "error": 'a, "b"'},
    ]
    written = as_frame(rows)
    written.to_csv(tmp_path / "runs.csv", index=False)
    read = Results(tmp_path).read_runs()
    pd.testing.assert_frame_equal(read, written)
    assert read["throughput_tok_s"].iloc[0] == 1234.5678901234567
    assert read["scheduler"].iloc[1] == "NA"
    assert records(read)[1]["throughput_tok_s"] is None


def test_a_table_from_before_a_column_is_readable(tmp_path: Path) -> None:
    old = as_frame([run("dfs", 1.0)]).drop(columns=["pp", "dtype", "tail_share"])
    old.to_csv(tmp_path / "runs.csv", index=False)
    read = Results(tmp_path).read_runs()
    assert list(read.columns) == list(COLUMNS)
    assert read["tail_share"].isna().all()
    assert read["dtype"].tolist() == [""]


def test_a_folder_without_runs_and_a_table_without_a_column_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found no runs\.csv"):
        Results(tmp_path).read_runs()
    as_frame([run("dfs", 1.0)]).drop(columns="steps").to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(InputError, match=r"runs\.csv: column 'steps' is missing"):
        Results(tmp_path).read_runs()
    for text in ("", "a,b\n1,2,3\n4,5,6,7\n"):
        (tmp_path / "runs.csv").write_text(text)
        with pytest.raises(InputError, match=r"runs\.csv: .*expected what `bssim sweep` wrote"):
            Results(tmp_path).read_runs()
