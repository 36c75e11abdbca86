"""One cell of a sweep: everything that decides its result, its content hash, and how to run it."""

import hashlib
import json
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from bssim import __version__
from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm.spec import LLMSpec
from bssim.cost_models.registry import fitted_file, make_cost_model
from bssim.errors import InputError
from bssim.experiments.sweeps.row import failed_row, ok_row
from bssim.experiments.sweeps.timeline import downsample
from bssim.sim.cluster.disaggregation import Disaggregation
from bssim.sim.engine.config import EngineConfig
from bssim.sim.result import SimulationResult
from bssim.sim.simulate import fitting, simulate
from bssim.sim.workload.load import load_mix, load_workload
from bssim.sim.workload.synthesis import MixSpec
from bssim.sim.workload.workload import Workload


@dataclass(frozen=True)
class ReaderOptions:
    """How a trace file is read; see `bssim.sim.workload.readers.read_workload`."""

    format: str | None = None
    """None: found from the content."""
    tokenizer: str | None = None
    """How the text of OpenAI batch files becomes tokens."""
    default_output_tokens: int | None = None
    """Stands in for the cap of lines of a batch file that have none."""
    max_prompt_tokens: int | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True)
class WorkloadRef:
    """Which workload a cell runs; small enough to send to a worker, which builds and keeps it."""

    source: str
    """Built-in name or file; the label of a mix."""
    num_requests: int | None
    seed: int
    name: str | None = None
    """The `workload` column; None: the loaded workload's own name."""
    reader: ReaderOptions = ReaderOptions()
    mix: MixSpec | None = None

    @property
    def label(self) -> str:
        """What a person calls it: its name, or the file's stem, as the reader has it."""
        return self.name or (self.source if self.mix else Path(self.source).name.partition(".")[0])

    def file_digests(self) -> dict[str, str]:
        """Return the sha256 of every file that the workload is made of, by path."""
        names = [self.source]
        if self.mix is not None:
            names = [self.mix.compute_source, self.mix.memory_source, self.mix.sharing_source]
        return {name: _digest(name) for name in names if Path(name).is_file()}


@lru_cache(maxsize=256)
def _digest(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: object) -> str:
    """Return what `json` does not know as text that is another for every other value."""
    if isinstance(value, np.ndarray):
        return _array_text(value.tobytes(), value.dtype.str, value.shape)
    return str(value)


@lru_cache(maxsize=256)  # numpy takes 0.1 s to print the curves of a GPU, and cells share them
def _array_text(data: bytes, dtype: str, shape: tuple[int, ...]) -> str:
    """Return an array as numpy prints it, or in full where that rounds or leaves values out."""
    array = np.frombuffer(data, dtype).reshape(shape)
    text = str(array)
    if "..." not in text:
        printed = np.array(text.replace("[", " ").replace("]", " ").split(), dtype=dtype)
        if np.array_equal(printed, array.ravel()):
            return text
    return json.dumps(array.tolist())


@lru_cache(maxsize=4)
def build_workload(ref: WorkloadRef) -> Workload:
    """Build a workload once a process: the cells of one workload share it."""
    if ref.mix is not None:
        return load_mix(ref.mix, num_requests=ref.num_requests, seed=ref.seed, name=ref.label)
    workload = load_workload(
        ref.source,
        num_requests=ref.num_requests,
        seed=ref.seed,
        **asdict(ref.reader),
    )
    return replace(workload, name=ref.name) if ref.name else workload


@dataclass(frozen=True)
class Cell:
    """One simulation, fully resolved: equal cells give equal results."""

    workload: WorkloadRef
    scheduler: str
    llm: LLMSpec
    hardware: HardwareSpec
    engine: EngineConfig
    cost_model: str = "roofline"
    output_lengths: str = "sampled"
    seed: int = 0
    tp: int = 1
    dp: int = 1
    disaggregation: str | None = None
    """Prefill and decode replicas, as ``1P2D``; None: every replica does both."""
    on_oversize: Literal["error", "drop"] = "error"
    config: str = "simulate"
    """Name of the sweep; a label, no part of the hash."""

    def inputs(self) -> dict[str, Any]:
        """Return all that decides the result, as plain JSON values."""
        inputs = asdict(self)
        del inputs["config"]
        if self.disaggregation is None:  # colocated cells keep the hash they had without the field
            del inputs["disaggregation"]
        inputs["file_digests"] = self.workload.file_digests()
        fitted = fitted_file(self.cost_model)
        if fitted is not None:
            inputs["file_digests"][str(fitted)] = _digest(str(fitted))
        inputs["bssim_version"] = __version__
        plain: dict[str, Any] = json.loads(json.dumps(inputs, default=_plain))
        return plain

    @cached_property
    def config_hash(self) -> str:
        """Sha256 over `inputs`, the first 16 hex digits: the cell's key in the results folder."""
        text = json.dumps(self.inputs(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CellOutcome:
    """What a finished cell leaves behind."""

    row: dict[str, Any]
    """One runs.csv row."""
    workload_notes: tuple[str, ...] = ()
    """What the reader or the synthesis did that a user must know."""
    planner_notes: tuple[str, ...] = ()
    """The same of the planner."""
    busy: tuple[float, ...] = ()
    """Share of the makespan that each replica spent in steps: prefill replicas, then decode."""
    timeline: pd.DataFrame | None = None
    """The downsampled timeline, where asked for."""


def simulate_cell(
    cell: Cell,
    *,
    record_timeline: bool = False,
    on_step: Callable[[dict[str, Any]], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Workload, SimulationResult]:
    """Build the cell's workload and simulate it; raises InputError for what cannot be run.

    Returns the pool that ran, oversize requests left out if the cell says so, and its result.
    """
    workload = fitting(
        build_workload(cell.workload),
        engine=cell.engine,
        llm=cell.llm,
        hardware=cell.hardware,
        tp=cell.tp,
        on_oversize=cell.on_oversize,
    )
    split = None if cell.disaggregation is None else Disaggregation.parse(cell.disaggregation)
    result = simulate(
        workload,
        scheduler=cell.scheduler,
        llm=cell.llm,
        hardware=cell.hardware,
        engine=cell.engine,
        cost_model=make_cost_model(
            cell.cost_model, cell.llm, cell.hardware, tp=cell.tp, engine=cell.engine.costs()
        ),
        output_lengths=cell.output_lengths,
        seed=cell.seed,
        tp=cell.tp,
        dp=cell.dp,
        disaggregation=split,
        record_timeline=record_timeline,
        on_step=on_step,
        progress=progress,
    )
    return workload, result


def run_cell(cell: Cell, timeline: bool = False) -> CellOutcome:
    """Run a cell to its row; whatever goes wrong in it becomes a row with ``status=failed``."""
    try:
        workload, result = simulate_cell(cell, record_timeline=timeline)
    except InputError as error:
        return CellOutcome(failed_row(cell, str(error)))
    except Exception as error:
        # The last frame says where; the whole traceback would not fit a CSV field.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return CellOutcome(failed_row(cell, f"{type(error).__name__}: {error} ({place})"))
    return CellOutcome(
        row=ok_row(cell, workload, result),
        workload_notes=workload.notes,
        planner_notes=tuple(note for note in result.notes if note not in workload.notes),
        busy=tuple(seconds / result.makespan_s for seconds in result.busy_s),
        timeline=downsample(result) if timeline else None,
    )
