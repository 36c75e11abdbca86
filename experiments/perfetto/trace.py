"""What a trace shows: the steps of each replica and the transfers between replicas.

A trace of a long run would be too large to load. Its steps are therefore summed up over slices of
time that are equally long for all replicas.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bssim.cost_models.density import token_sums

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MOST_ROWS = 12_000
"""Steps, or slices of time, of all replicas of a trace; likewise transfers."""


@dataclass(frozen=True, eq=False)
class StepTrack:
    """Steps of one replica, or slices of time with the sums of their steps. Shape: (rows,)."""

    name: str
    """For example ``prefill replica 1``."""
    start_s: FloatArray
    end_s: FloatArray
    prefill_s: FloatArray
    """Seconds of the steps that compute prompt tokens; a step with both kinds counts in both."""
    decode_s: FloatArray
    """Seconds of the steps that decode."""
    prefill_requests: FloatArray
    prefill_tokens: FloatArray
    decode_requests: FloatArray
    decode_context_tokens: FloatArray
    kv_tokens: IntArray
    """Held after scheduling; the most in a slice, as in `running`."""
    running: IntArray
    admitted: IntArray
    """First admissions, shape (rows, 2): on the compute side, on the memory side."""
    preempted: IntArray
    steps: IntArray
    """1 for a step."""
    compute_s: FloatArray | None = None
    """Compute seconds; None if they were not measured. Likewise memory seconds."""
    memory_s: FloatArray | None = None

    def sliced(self, slice_s: float) -> Self:
        """Return one row per slice of ``slice_s`` seconds in which a step starts."""
        number = np.floor(self.start_s / slice_s)
        first = np.flatnonzero(np.diff(number, prepend=-1.0))
        if not len(first):
            return self
        last = np.append(first[1:], len(number)) - 1
        parts: dict[str, Any] = {}
        for column in fields(self):
            values = getattr(self, column.name)
            if isinstance(values, np.ndarray):
                most = column.name in ("kv_tokens", "running")
                parts[column.name] = (np.maximum if most else np.add).reduceat(values, first)
        parts["start_s"], parts["end_s"] = self.start_s[first], self.end_s[last]
        return replace(self, **parts)


@dataclass(frozen=True, eq=False)
class TransferTrack:
    """KV transfers of one prefill replica, one at a time, or slices of time. Shape: (rows,)."""

    name: str
    start_s: FloatArray
    busy_s: FloatArray
    tokens: IntArray
    receiver: IntArray
    """Number of the decode replica, from 0; -1 in a slice."""
    transfers: IntArray
    """1 for a transfer."""

    def sliced(self, slice_s: float) -> Self:
        """Return one row per slice of ``slice_s`` seconds in which a transfer starts."""
        number = np.floor(self.start_s / slice_s)
        first = np.flatnonzero(np.diff(number, prepend=-1.0))
        if not len(first):
            return self
        return replace(
            self,
            start_s=self.start_s[first],
            busy_s=np.add.reduceat(self.busy_s, first),
            tokens=np.add.reduceat(self.tokens, first),
            receiver=np.full(len(first), -1),
            transfers=np.add.reduceat(self.transfers, first),
        )


@dataclass(frozen=True, eq=False)
class Trace:
    """All that a trace file shows."""

    replicas: tuple[StepTrack, ...]
    transfers: tuple[TransferTrack, ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    """What was run, for the metadata of the file."""
    slice_s: float | None = None
    """Seconds of a slice; None: the rows are steps."""

    def shortened(self, most: int = MOST_ROWS) -> Self:
        """Return the trace, in slices of time if it has more than ``most`` steps or transfers."""
        rows = max(
            sum(len(track.start_s) for track in self.replicas),
            sum(len(track.start_s) for track in self.transfers),
        )
        if rows <= most:
            return self
        end_s = max(float(track.end_s[-1]) for track in self.replicas if len(track.end_s))
        slice_s = _round_up(end_s * max(len(self.replicas), 1) / most)
        return replace(
            self,
            replicas=tuple(track.sliced(slice_s) for track in self.replicas),
            transfers=tuple(track.sliced(slice_s) for track in self.transfers),
            slice_s=slice_s,
        )


def compute_side(prompt_tokens: IntArray, output_tokens: IntArray) -> npt.NDArray[np.bool_]:
    """Return which requests are denser than their pool, shape (n,): those of the compute side.

    Density is compute seconds / memory seconds (`bssim.cost_models.density`), without sharing. The
    constants of a model and a GPU do not matter, because they are the same on both sides.
    """
    computed, read = token_sums(prompt_tokens, output_tokens)
    return np.asarray(computed * read.sum() >= computed.sum() * read)


def admitted_by_side(
    step: IntArray, on_compute_side: npt.NDArray[np.bool_], steps: int
) -> IntArray:
    """Return the admissions of every step by side, shape (steps, 2), from the step of each."""
    return np.stack(
        [np.bincount(step[side], minlength=steps) for side in (on_compute_side, ~on_compute_side)],
        axis=1,
    )


def _round_up(seconds: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, ... microseconds."""
    power = 10.0 ** np.floor(np.log10(seconds * 1e6))
    for factor in (1, 2, 5):
        if factor * power >= seconds * 1e6:
            return float(factor * power / 1e6)
    return float(10 * power / 1e6)
