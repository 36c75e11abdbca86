"""The worst rows, each simulated again with one assumption changed.

If one change removes most of an error, it is named as a likely reason; otherwise the row is
unexplained.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from bssim.experiments.result_pages.published.cells import GIB
from bssim.experiments.result_pages.published.measurements import Measurement
from bssim.experiments.sweeps import Cell, run_cell

SHOWN = 10
EXPLAINS = 0.5
"""A change that leaves less than this share of the error (in logs) explains it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One row's error, and the change that leaves the least of it."""

    row: Measurement
    error: float
    change: str
    """The change, in words."""
    left: float
    """The error with it."""

    @property
    def reason(self) -> str:
        """The reason as the page gives it."""
        if abs(self.left) < EXPLAINS * abs(self.error):
            return f"{self.change}: {self.left:+.0%}"
        return f"unexplained (nearest: {self.change}, {self.left:+.0%})"


def _engine(**settings: object) -> Callable[[Cell], Cell]:
    return lambda cell: replace(cell, engine=cell.engine.with_settings(settings))


def _less_memory(gib: float) -> Callable[[Cell], Cell]:
    def change(cell: Cell) -> Cell:
        reserve = max(cell.engine.kv_reserve + gib * GIB / cell.hardware.memory_bytes, 0.0)
        return replace(cell, engine=replace(cell.engine, kv_reserve=reserve))

    return change


def _limits(batch: float, tokens: float) -> Callable[[Cell], Cell]:
    def change(cell: Cell) -> Cell:
        seqs = max(1, int(cell.engine.max_num_seqs * batch))
        budget = max(seqs, int(cell.engine.max_num_batched_tokens * tokens))
        return replace(
            cell, engine=replace(cell.engine, max_num_seqs=seqs, max_num_batched_tokens=budget)
        )

    return change


CHANGES: dict[str, Callable[[Cell], Cell]] = {
    "KV cache in 0.90 of the free memory": _engine(kv_free_share=0.90),
    "KV cache in 0.99 of the free memory": _engine(kv_free_share=0.99),
    "1 GiB less memory per GPU": _less_memory(1.0),
    "3 GiB less memory per GPU": _less_memory(3.0),
    "2 GiB more memory per GPU": _less_memory(-2.0),
    "half the batch limit": _limits(0.5, 1.0),
    "four times the tokens per step": _limits(1.0, 4.0),
    "a quarter of the tokens per step": _limits(1.0, 0.25),
    "NCCL for every all-reduce": _engine(disable_custom_all_reduce=True),
    "vLLM's kernels, no host time": _engine(version="none"),
}
"""Each changes one assumption."""


def worst_trials(table: pd.DataFrame, cells: dict[Measurement, Cell]) -> list[Trial]:
    """Return the `SHOWN` rows with the largest errors, each with its best change.

    Errors compare as ratios: 2x too fast is as bad as 2x too slow.
    """
    ratio = (table["error"] + 1).map(lambda value: max(value, 1 / value))
    names = list(Measurement.__slots__)
    found = []
    for line in table.loc[ratio.nlargest(SHOWN).index].to_dict("records"):
        row = Measurement(**{name: line[name] for name in names})
        left = {name: _error(row, change(cells[row])) for name, change in CHANGES.items()}
        ran = {name: value for name, value in left.items() if value is not None}
        change = min(ran, key=lambda name: abs(ran[name]))
        found.append(Trial(row, float(line["error"]), change, ran[change]))
    return found


def _error(row: Measurement, cell: Cell) -> float | None:
    """Return the error of a row simulated as ``cell``; None if it cannot run."""
    run = run_cell(cell).row
    return None if run["status"] != "ok" else row.seconds / float(run["makespan_s"]) - 1
