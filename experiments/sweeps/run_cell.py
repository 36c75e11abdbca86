"""Run one cell: from its inputs to a result, or to a row with the error."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.step_cost import CostModel
from bssim.errors import InputError
from bssim.experiments.sweeps.cell import Cell
from bssim.experiments.sweeps.row import failed_row, ok_row
from bssim.experiments.sweeps.timeline import downsample
from bssim.experiments.sweeps.workload_ref import build_workload
from bssim.sim.result import SimulationResult
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload


@dataclass(frozen=True)
class CellOutcome:
    """The output of a finished cell."""

    row: dict[str, Any]
    """One runs.csv row."""
    workload_notes: tuple[str, ...] = ()
    """Notes of the reader or the synthesis that the user must see."""
    planner_notes: tuple[str, ...] = ()
    """Notes of the planner."""
    busy: tuple[float, ...] = ()
    """Share of the makespan that each replica spent in steps: prefill replicas, then decode."""
    timeline: pd.DataFrame | None = None
    """The downsampled timeline, if requested."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """What a cell reads from files, for a machine that does not have the files."""

    workload: Workload
    cost_model: CostModel | None = None
    """A fitted cost model; None for the others, which need no file of the user."""


class Run(Protocol):
    """Runs one cell, and reads its files itself unless they are given."""

    def __call__(self, cell: Cell, loaded: Loaded | None = None) -> CellOutcome:
        """Return the outcome of the cell."""


def simulate_cell(
    cell: Cell,
    *,
    loaded: Loaded | None = None,
    record_timeline: bool = False,
    exact_kv: bool = True,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SimulationResult:
    """Build the cell's workload and simulate it; raises InputError if that is impossible."""
    return simulate(
        build_workload(cell.workload) if loaded is None else loaded.workload,
        scheduler=cell.scheduler,
        llm=cell.llm,
        hardware=cell.hardware,
        engine=cell.engine,
        cost_model=(loaded and loaded.cost_model)
        or make_cost_model(
            cell.cost_model, cell.llm, cell.hardware, tp=cell.tp, engine=cell.engine.costs()
        ),
        output_lengths=cell.output_lengths,
        seed=cell.seed,
        tp=cell.tp,
        dp=cell.dp,
        disaggregation=cell.disaggregation,
        record_timeline=record_timeline,
        exact_kv=exact_kv,
        on_step=on_step,
        on_oversize=cell.on_oversize,
        progress=progress,
    )


def run_cell(cell: Cell, loaded: Loaded | None = None, *, timeline: bool = False) -> CellOutcome:
    """Run a cell and return its row; any exception becomes a row with ``status=failed``."""
    try:
        result = simulate_cell(cell, loaded=loaded, record_timeline=timeline)
    except InputError as error:
        return CellOutcome(failed_row(cell.identity(), str(error)))
    except Exception as error:
        # The last frame locates the error; the whole traceback would not fit a CSV field.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return CellOutcome(
            failed_row(cell.identity(), f"{type(error).__name__}: {error} ({place})")
        )
    return CellOutcome(
        row=ok_row(cell.identity(), result),
        workload_notes=result.workload.notes,
        planner_notes=tuple(note for note in result.notes if note not in result.workload.notes),
        busy=tuple(seconds / result.makespan_s for seconds in result.busy_s),
        timeline=downsample(result) if timeline else None,
    )
