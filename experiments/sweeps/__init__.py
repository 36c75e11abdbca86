"""Sweeps: from a YAML file to a results folder.

`read_sweep_file` reads the file, `expand` turns it into cells (one simulation each), `run_sweep`
runs them, and `Results` is the folder. To add a field that a sweep can vary, add it to `config.py`
and `grid.py`; to add a column of results, add it to `row.py`.
"""

from bssim.experiments.sweeps.axes import (
    setting_label,
    varied_numbers,
    varied_settings,
    workload_family,
)
from bssim.experiments.sweeps.cell import Cell
from bssim.experiments.sweeps.config import SweepFile, read_sweep_file
from bssim.experiments.sweeps.engine_settings import engine_from_options, engine_with
from bssim.experiments.sweeps.grid import expand
from bssim.experiments.sweeps.row import COLUMN_TYPES, COLUMNS, ok_row
from bssim.experiments.sweeps.run import (
    TIMELINE_CELLS,
    Progress,
    SweepOutcome,
    keeps_timelines,
    run_sweep,
)
from bssim.experiments.sweeps.run_cell import run_cell, simulate_cell
from bssim.experiments.sweeps.shard import Shard
from bssim.experiments.sweeps.store import Results, records, write_text
from bssim.experiments.sweeps.summary import OVERLAP_NOTE, winners_of, with_common_seeds
from bssim.experiments.sweeps.swept import cell_labels, set_fields, swept_columns
from bssim.experiments.sweeps.timeline import (
    ONE_REPLICA,
    Shown,
    per_step,
    replica_kinds,
    shown_replicas,
)
from bssim.experiments.sweeps.winners import (
    BASELINES,
    common_and_own,
    conclusion,
    tail_sentence,
    winners,
    winners_markdown,
    winners_table,
)
from bssim.experiments.sweeps.workload_ref import WorkloadRef, build_workload

__all__ = [
    "BASELINES",
    "COLUMNS",
    "COLUMN_TYPES",
    "ONE_REPLICA",
    "OVERLAP_NOTE",
    "TIMELINE_CELLS",
    "Cell",
    "Progress",
    "Results",
    "Shard",
    "Shown",
    "SweepFile",
    "SweepOutcome",
    "WorkloadRef",
    "build_workload",
    "cell_labels",
    "common_and_own",
    "conclusion",
    "engine_from_options",
    "engine_with",
    "expand",
    "keeps_timelines",
    "ok_row",
    "per_step",
    "read_sweep_file",
    "records",
    "replica_kinds",
    "run_cell",
    "run_sweep",
    "set_fields",
    "setting_label",
    "shown_replicas",
    "simulate_cell",
    "swept_columns",
    "tail_sentence",
    "varied_numbers",
    "varied_settings",
    "winners",
    "winners_markdown",
    "winners_of",
    "winners_table",
    "with_common_seeds",
    "workload_family",
    "write_text",
]
