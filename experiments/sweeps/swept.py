"""The extra columns of runs.csv: one per field that a sweep set or varied."""

from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from bssim.experiments.sweeps.axes import setting_label, varied_settings
from bssim.experiments.sweeps.cell import Cell
from bssim.sim.engine import EngineConfig, load_preset, preset_names

IN_COLUMNS = ("name", "overlap")
"""Engine fields that the fixed columns already contain."""


def set_fields(cell: Cell) -> dict[str, Any]:
    """Return the fields set in a cell: knobs unlike the preset's, the split, mix targets."""
    beside, own = _beside_knobs(cell), _knobs(cell.engine)
    preset = _preset(cell.engine.name)
    fields = {f"engine.{k}": v for k, v in own.items() if preset is None or preset[k] != v}
    return fields | beside


def swept_columns(cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    """Return the extra columns of each row by config_hash: every field that is set in any cell.

    All rows have the same columns, in the order of the cells. A cell without such a field (for
    example, a workload that is not a mix) has None.
    """
    known = list(cells)
    names = list(dict.fromkeys(name for cell in known for name in set_fields(cell)))
    columns = {}
    for cell in known:
        values = {f"engine.{k}": v for k, v in _knobs(cell.engine).items()} | _beside_knobs(cell)
        columns[cell.config_hash] = {name: values.get(name) for name in names}
    return columns


def cell_labels(cells: Iterable[Cell]) -> dict[str, str]:
    """Return what distinguishes each cell, in words, by config_hash.

    Workload and scheduler come first, then the inputs that vary: model, GPU, knobs, seed.
    """
    known = list(cells)
    varied = varied_settings({cell.config_hash: cell.inputs() for cell in known})
    several_seeds = len({cell.seed for cell in known}) > 1
    labels = {}
    for cell in known:
        parts = [f"{cell.workload.label} {cell.scheduler}"]
        if setting := setting_label({str(k): v for k, v in varied.loc[cell.config_hash].items()}):
            parts.append(setting)
        if several_seeds:
            parts.append(f"seed {cell.seed}")
        labels[cell.config_hash] = ", ".join(parts)
    return labels


def _beside_knobs(cell: Cell) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if cell.disaggregation is not None:
        fields["disaggregation"] = cell.disaggregation
    if cell.workload.mix is not None:
        fields["mix.density"] = cell.workload.mix.density
        fields["mix.sharing"] = cell.workload.mix.sharing
    return fields


def _knobs(engine: EngineConfig) -> dict[str, Any]:
    return {k: v for k, v in asdict(engine).items() if k not in IN_COLUMNS}


@lru_cache(maxsize=32)
def _preset(name: str) -> dict[str, Any] | None:
    return _knobs(load_preset(name)) if name in preset_names() else None
