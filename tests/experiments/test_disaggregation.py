"""Disaggregation as a user sweeps it: cells, columns, labels and messages."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bssim.errors import InputError
from bssim.experiments.cli import main
from bssim.experiments.sweeps import Cell, Results, run_cell

Cells = Callable[[str], list[Cell]]
SPLITS = """
workloads: trace1
schedulers: dfs
engines: vllm
num_requests: 60
disaggregation: [null, 1P1D, 2P1D]
"""


def test_every_split_is_a_cell_and_colocated_ones_keep_their_hash(cells_of: Cells) -> None:
    cells = cells_of(SPLITS)
    assert [cell.disaggregation for cell in cells] == [None, "1P1D", "2P1D"]
    (before,) = cells_of(SPLITS.replace("disaggregation: [null, 1P1D, 2P1D]", ""))
    assert cells[0].config_hash == before.config_hash
    assert "disaggregation" not in before.inputs()
    assert len({cell.config_hash for cell in cells}) == 3


def test_columns_count_the_gpus_and_records_say_how_busy_they_were(
    cells_of: Cells, tmp_path: Path
) -> None:
    cells = cells_of(SPLITS)
    results = Results(tmp_path / "out")
    for cell in cells:
        results.save(cell, run_cell(cell))
    runs = results.write_runs(cells)
    assert runs["status"].tolist() == ["ok"] * 3
    assert runs["engine"].tolist() == ["vllm", "vllm-1P1D", "vllm-2P1D"]
    assert runs["dp"].tolist() == [1, 2, 3]
    assert (runs["share_of_bound"] <= 1 + 1e-9).all()
    optimum = runs["optimum_tok_s"]
    assert optimum[2] == pytest.approx(3 * optimum[0])
    for cell, replicas in zip(cells, (1, 2, 3), strict=True):
        record = results.record(cell.config_hash)
        assert record is not None
        assert len(record["busy"]) == replicas
        assert all(0 < share <= 1 + 1e-9 for share in record["busy"])
    assert any("stalled for decode room" in note for note in record["planner_notes"])
    labels = results.setting_labels(runs)
    assert len(set(labels.values())) == 3
    assert "nan" not in " ".join(labels.values())


def test_timelines_have_the_gaps_in_which_a_replica_idles(cells_of: Cells) -> None:
    timeline = run_cell(cells_of(SPLITS)[1], timeline=True).timeline
    assert timeline is not None
    decode = timeline[timeline["replica"] == 1]
    assert decode["start_s"].iloc[0] > 0  # it waits for the first prompt


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1P1D", "1P", r":6: disaggregation\[1\]: found '1P'; expected xPyD"),
        ("1P1D", "3", r":6: disaggregation.*found 3"),
        (
            "schedulers: dfs",
            "schedulers: [dfs, ratio]",
            r":6: disaggregation: scheduler: found 'ra",
        ),
        ("num_requests: 60", "dp: 2", r":6: disaggregation: dp: found 2"),
    ],
)
def test_what_a_sweep_file_cannot_ask_for(
    cells_of: Cells, old: str, new: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        cells_of(SPLITS.replace(old, new))


def test_the_command_line_takes_a_split(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["simulate", "-w", "trace1", "-n", "60", "-s", "dfs", "--disaggregation", "1P2D"]
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--json", "--quiet"])
    assert not exit_.value.code
    row = json.loads(capsys.readouterr().out)
    assert (row["engine"], row["dp"]) == ("nanoflow-1P2D", 3)
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--schedule", str(tmp_path / "s.jsonl")])
    assert exit_.value.code
    assert "--schedule: found beside --disaggregation" in capsys.readouterr().err
