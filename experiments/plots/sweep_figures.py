"""Draw the figures of a results folder from its runs.csv and timelines."""

import hashlib
import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bssim.errors import InputError
from bssim.experiments.plots.bars import MAX_WORKLOADS, sharing_figure, throughput_figure
from bssim.experiments.plots.heading import conditions_of
from bssim.experiments.plots.heatmap import speedup_figure
from bssim.experiments.plots.steps import steps_figure
from bssim.experiments.plots.style import save
from bssim.experiments.sweeps import (
    BASELINES,
    Results,
    replica_kinds,
    setting_label,
    varied_numbers,
    varied_settings,
    with_common_seeds,
    workload_family,
)

LONGEST_NAME = 120
"""The most bytes of a file name: file systems allow 255, encrypted ones 143, with the suffix."""

KINDS = ("throughput", "sharing", "steps-", "speedup-over-")
"""How the names of figures begin."""


def draw_figures(results: Results) -> list[Path]:
    """Draw all figures of a results folder into ``figures/`` and return their paths.

    The figures are bars of throughput and sharing for each setting (model, hardware, engine, ...),
    compute and memory per step for each workload with timelines, and heat maps if two numbers were
    swept. Figures of an earlier sweep into the folder are removed. Raises InputError if the folder
    has no finished cell.
    """
    runs = results.read_runs()
    ok = runs[runs["status"] == "ok"]
    if ok.empty:
        raise InputError(results.folder, "no finished cell", "at least one to draw")
    ok = ok.assign(setting=ok["config_hash"].map(results.setting_labels(runs)))
    same = with_common_seeds(ok)
    paths: list[Path] = []
    for name, figure in [*_bars(same), *_steps(results, ok), *_heatmaps(results, same)]:
        paths += save(figure, results.folder / "figures" / name)
    _remove_others(paths, results.folder / "figures")
    return paths


def _remove_others(drawn: list[Path], folder: Path) -> None:
    """Remove figures that the sweep no longer has, and what a killed command left half written."""
    for path in folder.glob("*"):
        ours = path.name.startswith(KINDS) and path.suffix in (".png", ".pdf")
        left = path.name.startswith(tuple(f".{kind}" for kind in KINDS)) and path.suffix == ".tmp"
        if (ours or left) and path not in drawn:
            path.unlink(missing_ok=True)


def _slug(*parts: str) -> str:
    """Return a file name for ``parts``; shorten a long one and add a hash."""
    name = "-".join(re.sub(r"[^\w.=]+", "-", part).strip("-") for part in parts if part)
    data = name.encode()
    if len(data) <= LONGEST_NAME:
        return name
    start = data[: LONGEST_NAME - 9].decode(errors="ignore")  # a character may have several bytes
    return f"{start}-{hashlib.sha256(data).hexdigest()[:8]}"


def _bars(ok: pd.DataFrame) -> list[tuple[str, Figure]]:
    figures = []
    for setting, group in ok.groupby("setting", sort=False):
        if group["workload"].nunique() <= MAX_WORKLOADS:
            suffix = str(setting) if ok["setting"].nunique() > 1 else ""
            figures.append((_slug("throughput", suffix), throughput_figure(group)))
            figures.append((_slug("sharing", suffix), sharing_figure(group)))
    return figures


def _steps(results: Results, ok: pd.DataFrame) -> list[tuple[str, Figure]]:
    figures = []
    timelines = results.timelines(ok)
    inputs = results.inputs(ok)
    known = ok[ok["config_hash"].isin(list(inputs))]  # a record may be lost
    first_seed = known[known["seed"] == known["seed"].min()]
    for (setting, workload), group in first_seed.groupby(["setting", "workload"], sort=False):
        cell = group["config_hash"].iloc[0]
        kept = {
            row.scheduler: timelines[row.config_hash]
            for row in group.itertuples()
            if row.config_hash in timelines
        }
        if kept:
            suffix = str(setting) if ok["setting"].nunique() > 1 else ""
            kinds, conditions = replica_kinds(inputs[cell]), conditions_of(group)
            if ok["seed"].nunique() > 1:
                conditions += f", seed {group['seed'].iloc[0]}"
            figure = steps_figure(kept, str(workload), kinds, conditions)
            figures.append((_slug("steps", str(workload), suffix), figure))
    return figures


def _heatmaps(results: Results, ok: pd.DataFrame) -> list[tuple[str, Figure]]:
    """Return a heat map for each workload (or grid of mixes) and each other setting."""
    baseline = next((name for name in BASELINES if name in set(ok["scheduler"])), None)
    inputs = results.inputs(ok)
    numbers = varied_numbers(inputs)
    if baseline is None or numbers.shape[1] < 2:
        return []
    ok = ok[ok["config_hash"].isin(list(inputs))]
    settings = varied_settings(inputs).drop(columns=numbers.columns, errors="ignore")
    knobs = zip(settings.index, settings.to_dict("records"), strict=True)
    labels = {key: setting_label({str(k): v for k, v in mine.items()}) for key, mine in knobs}
    families = [
        workload_family(label, inputs[key]["workload"])
        for label, key in zip(ok["workload"], ok["config_hash"], strict=True)
    ]
    ok = ok.assign(family=families, beside=ok["config_hash"].map(labels))
    figures = []
    for (family, beside), group in ok.groupby(["family", "beside"], sort=False):
        points = _grid_points(numbers.loc[group["config_hash"].unique()])
        if points is None or not {baseline} < set(group["scheduler"]):
            continue
        names = [str(family)] if ok["family"].nunique() > 1 else []
        names += [str(beside)] if ok["beside"].nunique() > 1 else []
        # tp and dp are columns of runs.csv too; with disaggregation, that dp counts both kinds.
        own = group.drop(columns=points.columns, errors="ignore").join(points, on="config_hash")
        rows, columns = points.columns
        figure = speedup_figure(own, rows, columns, baseline, title=", ".join(names))
        figures.append((_slug("speedup", "over", baseline, *names), figure))
    return figures


def _grid_points(numbers: pd.DataFrame) -> pd.DataFrame | None:
    """Return the two columns that vary, or None if there are more or fewer, or few grid points.

    For example, presets differ in several numbers at once, which gives a diagonal and not a grid.
    """
    points = numbers.loc[:, numbers.nunique(dropna=False) > 1]
    if points.shape[1] != 2:
        return None
    rows, columns = points.nunique(dropna=False)
    return points if 2 * len(points.drop_duplicates()) > rows * columns else None
