"""Fit a co-run frontier to GEMMs and decode attention, timed alone and together.

Work that takes Tc and Tm seconds alone and T seconds together keeps the rates (Tc/T, Tm/T), which
is a point of the frontier. This also holds if one of the two ends first, because the frontier may
mix points. All runs with the same ratio Tm/Tc give one point, their geometric mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bssim.cost_models.fitting.operator_time import DIRTY_SPREAD, marked
from bssim.cost_models.hardware import CoRunPoints
from bssim.cost_models.overlap import PUBLISHED_CORUN, FrontierOverlap, parse_overlap
from bssim.cost_models.step_cost import FloatArray, OverlapModel, StepCost
from bssim.errors import InputError


@dataclass(frozen=True, slots=True)
class CoRun:
    """GEMMs and decode attention, alone and together; seconds are medians over repetitions."""

    ratio: float
    """Target ratio of attention seconds to GEMM seconds; runs with one ratio give one point."""
    gemm_s: float
    attention_s: float
    together_s: float
    spread: float
    """Half the interquartile range of the repetitions together, over the median."""
    held_out: bool = False
    """Used only to check the frontier, not to fit it."""


@dataclass(frozen=True, eq=False)
class CoRunFit:
    """The measured frontier, and the errors of overlap models on the measured times."""

    points: CoRunPoints
    errors: Mapping[str, FloatArray]
    """predicted / measured - 1 of every held-out run, for ``fitted`` and, for comparison,
    ``published`` (the default frontier), ``perfect`` (max) and ``sequential``."""
    spread: float
    """Median over runs."""

    @property
    def is_dirty(self) -> bool:
        """True if repetitions differed too much to trust the medians."""
        return self.spread > DIRTY_SPREAD

    def error_text(self, name: str) -> str:
        """Return the bias and the median and worst absolute error of one model, as text."""
        error = self.errors[name]
        size = np.abs(error)
        return (
            f"{name}: mean {np.mean(error):+.1%}, median error {np.median(size):.1%}, "
            f"worst {np.max(size):.1%}"
        )

    def as_yaml(self) -> str:
        """Return the ``corun`` section of a hardware file."""
        lines = ["corun:", f'  source: "{self.points.source}"']
        for name in ("attention", "network"):
            pairs = ", ".join(f"[{a:.4g}, {b:.4g}]" for a, b in getattr(self.points, name))
            lines.append(f"  {name}: [{pairs}]")
        return "\n".join(lines) + "\n"


def fit_corun(runs: Sequence[CoRun], source: str) -> CoRunFit:
    """Fit the frontier to the runs that are not held out; return its errors on the others.

    The points of the network are the published ones. Raises InputError unless there are runs of
    both kinds.
    """
    seen = [run for run in runs if not run.held_out]
    unseen = [run for run in runs if run.held_out]
    if not (seen and unseen):
        raise InputError(
            "calibrate",
            f"{len(seen)} co-runs to fit to and {len(unseen)} held out",
            "at least one of each",
        )
    spread = float(np.median([run.spread for run in runs]))
    source = marked(source, spread)
    ratios = sorted({run.ratio for run in seen})
    attention = tuple(_point([run for run in seen if run.ratio == ratio]) for ratio in ratios)
    points = CoRunPoints(attention, PUBLISHED_CORUN.network, source)
    models: dict[str, OverlapModel] = {
        "fitted": FrontierOverlap(points),
        "published": FrontierOverlap(),
        "perfect": parse_overlap("perfect"),
        "sequential": parse_overlap("sequential"),
    }
    errors = {name: _errors(model, unseen) for name, model in models.items()}
    fit = CoRunFit(points, errors, spread)
    network = f"network: {PUBLISHED_CORUN.source}"
    text = f"{source}; {len(unseen)} co-runs held out, {fit.error_text('fitted')}; {network}"
    return replace(fit, points=replace(points, source=text))


def _point(runs: Sequence[CoRun]) -> tuple[float, float]:
    """Return the mean rates of GEMMs and attention, limited to 1 in case of noise."""
    gemm = np.mean([np.log(run.gemm_s / run.together_s) for run in runs])
    attention = np.mean([np.log(run.attention_s / run.together_s) for run in runs])
    return min(1.0, float(np.exp(gemm))), min(1.0, float(np.exp(attention)))


def _errors(model: OverlapModel, runs: Sequence[CoRun]) -> FloatArray:
    zero = np.zeros(len(runs))
    alone = StepCost(
        compute_s=np.array([run.gemm_s for run in runs]),
        memory_s=np.array([run.attention_s for run in runs]),
        communication_s=zero,
        fixed_s=zero,
        bandwidth_s=zero,
    )
    together = np.array([run.together_s for run in runs])
    return np.asarray(model.step_seconds(alone) / together - 1)
