"""One schedule, simulated and measured, and how several of them rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from bssim.backends import ReplayResult, Row
from bssim.experiments.calibration import HeldOutError
from bssim.sim.result import SimulationResult

TIE = 0.02
"""Measured throughputs that differ by less than this are not ranked."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """One schedule, simulated and measured."""

    scheduler: str
    simulated: SimulationResult
    simulated_steps: list[Row]
    measured: ReplayResult
    steps_error: HeldOutError
    predicted_s: npt.NDArray[np.float64]
    """Shape (measured steps,): the model's seconds for the steps that the engine really ran."""

    @property
    def first_difference(self) -> int:
        """The first step that the engine composed differently; -1 if all steps are equal."""
        keys = ("cached", "preempted", "free_blocks", "finished")
        ours, theirs = self.simulated_steps, self.measured.steps
        for k, (a, b) in enumerate(zip(ours, theirs, strict=False)):
            same_order = list(a["scheduled"].items()) == list(b["scheduled"].items())
            if not same_order or any(a[key] != b[key] for key in keys):
                return k
        return -1 if len(ours) == len(theirs) else min(len(ours), len(theirs))

    def row(self, first: "Comparison") -> dict[str, Any]:
        """Return the row of the report; speed-ups are over the scheduler of ``first``."""
        simulated, measured = self.simulated.throughput_tok_s, self.measured.throughput_tok_s
        gain = simulated / first.simulated.throughput_tok_s
        true_gain = measured / first.measured.throughput_tok_s
        return {
            "scheduler": self.scheduler,
            "simulated_tok_s": simulated,
            "measured_tok_s": measured,
            "throughput_error": simulated / measured - 1,
            "simulated_speedup": gain,
            "measured_speedup": true_gain,
            "speedup_error": gain / true_gain - 1,
            "simulated_steps": self.simulated.steps,
            "measured_steps": len(self.measured.steps),
            "simulated_cached_tokens": self.simulated.cached_tokens,
            "measured_cached_tokens": self.measured.cached_tokens,
            "simulated_preemptions": self.simulated.preemptions,
            "measured_preemptions": self.measured.preemptions,
            "first_differing_step": self.first_difference,
            "step_error_median": self.steps_error.median,
            "step_error_p90": self.steps_error.p90,
        }


def ranked_alike(comparisons: Sequence[Comparison]) -> tuple[int, int]:
    """Return the number of pairs that simulation and measurement rank alike, and of all pairs.

    Pairs measured within `TIE` of each other are left out, because noise would rank them.
    """
    found = [(c.simulated.throughput_tok_s, c.measured.throughput_tok_s) for c in comparisons]
    clear = [(a, b) for a, b in combinations(found, 2) if abs(a[1] / b[1] - 1) > TIE]
    return sum((a[0] > b[0]) == (a[1] > b[1]) for a, b in clear), len(clear)
