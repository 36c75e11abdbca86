"""Small sweeps that run in a second or two."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bssim.experiments.sweeps import Cell, expand, read_sweep_file

SMALL_SWEEP = """
workloads: [trace1, trace3]
schedulers: [fcfs, dfs, blendserve]
num_requests: 300
"""


@pytest.fixture
def cells_of(tmp_path: Path) -> Callable[[str], list[Cell]]:
    """Return a function from the text of a sweep file to its cells."""

    def cells(text: str) -> list[Cell]:
        path = tmp_path / "demo.yaml"
        path.write_text(text)
        return expand(read_sweep_file(path))

    return cells


@pytest.fixture
def small_cells(cells_of: Callable[[str], list[Cell]]) -> list[Cell]:
    return cells_of(SMALL_SWEEP)
