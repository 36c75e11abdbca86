"""The style of every figure: paper-column widths, colour-blind safe colours, stable bytes."""

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from bssim.whole_file import replacing

SINGLE_IN = 3.3
"""Width of one column of a paper, inches."""
DOUBLE_IN = 7.0
"""Width of both columns."""

# Okabe and Ito's palette and three of Tol's colours, safe for common colour-vision deficiencies.
SCHEDULER_COLOURS = {
    "fcfs": "#999999",
    "random": "#56B4E9",
    "dfs": "#E69F00",
    "lpm": "#CC79A7",
    "blendserve": "#0072B2",
    "ratio": "#009E73",
    "dfs_compute_first": "#661100",
    "dfs_memory_first": "#F0E442",
    "lpm_no_cutoff": "#882255",
    "blendserve_adaptive": "#44AA99",
}
"""Scheduler -> its colour in every figure, in drawing order."""
SPARE_COLOUR = "#DDDDDD"
"""The colour of all other schedulers."""
HATCHES = ("", "////", "....", "xxxx", "----", "||||", "\\\\\\\\", "++++", "oooo")
"""Hatches that distinguish bars of the spare colour."""
MOST_COLUMNS = 6
"""The most columns of a legend."""
COMPUTE_COLOUR = "#D55E00"
MEMORY_COLOUR = "#000000"

_RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "font.family": "DejaVu Sans",
}


def scheduler_colour(name: str) -> str:
    """Return the colour of a scheduler."""
    return SCHEDULER_COLOURS.get(name, SPARE_COLOUR)


def scheduler_order(names: Iterable[str]) -> list[str]:
    """Return schedulers in the order of SCHEDULER_COLOURS, then all others by name."""
    rank = {name: i for i, name in enumerate(SCHEDULER_COLOURS)}
    return sorted(set(names), key=lambda name: (rank.get(name, len(rank)), name))


def scheduler_hatches(names: Iterable[str]) -> dict[str, str]:
    """Return the hatch of each scheduler's bars; only bars of the spare colour have one."""
    spare = [name for name in scheduler_order(names) if name not in SCHEDULER_COLOURS]
    hatches = {name: HATCHES[i % len(HATCHES)] for i, name in enumerate(spare)}
    return {name: hatches.get(name, "") for name in names}


def legend_columns(labels: Sequence[str], width_in: float) -> int:
    """Return the columns of a legend with these labels, for the fewest rows of equal length."""
    widest = 0.25 + 0.048 * max(map(len, labels))  # handle and gaps, plus 7-point characters
    most = max(1, min(int(width_in / widest), MOST_COLUMNS))
    return math.ceil(len(labels) / math.ceil(len(labels) / most))


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure whose layout avoids overlaps; draw inside `styled()`."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


def styled() -> AbstractContextManager[None]:
    """Return the context in which figures are drawn."""
    return rc_context(_RC)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.pdf``, each completely or not at all.

    The same figure gives the same bytes: the files have no dates and versions, because those would
    differ between runs.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    png, pdf = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".pdf")
    with replacing(png) as part:
        figure.savefig(part, format="png", dpi=300, metadata={"Software": None})
    figure.set_layout_engine("none")  # reuse the layout, because computing it is slow
    undated = {"CreationDate": None, "Producer": None, "Creator": None}
    with replacing(pdf) as part:
        figure.savefig(part, format="pdf", metadata=undated)
    return [png, pdf]
