"""Overhead per cell of a sweep: ``python benchmarks/sweep_overhead.py [CELLS] [loky|ray]``.

Each cell simulates one request. The printed milliseconds per cell contain everything from reading
the sweep file to runs.csv and summary.md; with RAY_ADDRESS, ``ray`` uses that cluster.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bssim.experiments.sweeps import Cell, Results, expand, read_sweep_file, run_sweep


class Silent:
    """Reports nothing, and notes when the last cell was saved."""

    last = 0.0

    def start(self, due: int, reused: int) -> None:
        pass

    def finished(self, cell: Cell, row: dict[str, Any]) -> None:
        self.last = time.perf_counter()


def main(cells: int = 10_000, backend: str = "loky") -> None:
    seeds = ", ".join(map(str, range(cells)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "overhead.yaml"
        file.write_text(
            f"workload: fixed:64x1\nscheduler: fcfs\nnum_requests: 1\nseeds: [{seeds}]\n"
        )
        results, watch = Results(Path(folder) / "results"), Silent()
        begin = time.perf_counter()
        grid = expand(read_sweep_file(file))
        expanded = time.perf_counter()
        outcome = run_sweep(grid, results, backend=backend, jobs=-1, progress=watch)
        end = time.perf_counter()
        resumed = run_sweep(grid, results, backend=backend, jobs=-1, progress=Silent())
        again = time.perf_counter()
    assert outcome.count("ok") == resumed.reused == cells
    parts = {
        "read and check the file": expanded - begin,
        "run and save": watch.last - expanded,
        "write the tables": end - watch.last,
        "the same command again": again - end,
    }
    for name, seconds in parts.items():
        print(f"{backend}, {cells} cells: {name}: {1000 * seconds / cells:.2f} ms/cell")


if __name__ == "__main__":
    count, kind = (sys.argv[1:] + ["10000", "loky"][len(sys.argv) - 1 :])[:2]
    main(int(count), kind)
