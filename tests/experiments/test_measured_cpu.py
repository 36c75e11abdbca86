"""The errors that docs/cost_models.md gives for a CPU are those of the rows that are kept."""

from dataclasses import replace
from pathlib import Path

import pytest

from bssim.backends import read_replay
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import Precision, load_llm
from bssim.experiments.calibration import predicted_errors

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "experiments" / "measured" / "cpu-operators"


@pytest.mark.parametrize(
    ("name", "label"),
    [("calibration-0-fcfs", "seed 1, fcfs"), ("fcfs", "seed 0, fcfs"), ("dfs", "seed 0, dfs")],
)
def test_the_documented_error_is_that_of_the_kept_rows(name: str, label: str) -> None:
    llm = load_llm(ROOT / "configs" / "validate" / "small-llama")
    (error,) = predicted_errors(
        replace(llm, precision=Precision("float32")),
        load_hardware(MEASURED / "cpu.yaml"),
        [read_replay(MEASURED / "replays" / f"{name}.json")],
    )
    lines = (ROOT / "docs" / "cost_models.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"| {label} |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == f"{error.total:+.1%}".replace("%", " %")
    assert cells[2] == f"{error.median:.1%}".replace("%", " %")
