"""A density order with its loads, from which the dual scan derives its budgets."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bssim.sim.schedulers.blendserve.resource_tree import Loads

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

UNIT_REQUESTS = 256
"""Number of neighbours in the order whose means set the budgets of a side."""
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class Unit:
    """The means of neighbours in the order, from which the budgets of a side follow."""

    density: float
    prefill_tokens: float
    """Mean uncached prompt tokens of a request."""
    kv_token_steps: float
    """Mean KV tokens times steps of a request: E[p d + d^2 / 2]."""
    output_tokens: float


class BlendedOrder:
    """A density order with its loads, in units of a few hundred requests."""

    def __init__(
        self,
        order: IntArray,
        loads: Loads,
        *,
        known_lengths: bool = False,
        unit_requests: int = UNIT_REQUESTS,
    ) -> None:
        """``known_lengths``: whether the loads come from true output lengths."""
        self.known_lengths = known_lengths
        self.order = order
        """Shape (n,): requests, compute-intensive first."""
        self.output_tokens = loads.output_tokens[order]
        """Shape (n,): estimated, along the order."""
        self._prompts = loads.prefill_tokens[order]
        self._compute = _sums(loads.compute_s[order])
        self._memory = _sums(loads.memory_s[order])
        self._density = loads.compute_s[order] / np.maximum(loads.memory_s[order], _TINY)
        self._prefill = _sums(self._prompts)
        self._reads = _sums(loads.kv_token_steps[order])
        self._output = _sums(self.output_tokens)
        self._unit_requests = unit_requests

    def span(self, position: int) -> tuple[int, int]:
        """Return the prompt tokens held at admission and the output tokens of a position."""
        return int(self._prompts[position]), int(self.output_tokens[position])

    def density(self, begin: int, end: int) -> float:
        """Return compute seconds divided by memory seconds of positions ``begin`` to ``end``."""
        memory = _between(self._memory, begin, end)
        return _between(self._compute, begin, end) / max(memory, _TINY)

    def compute_s(self, begin: int, end: int) -> float:
        """Return the compute seconds of positions ``begin`` to ``end``."""
        return _between(self._compute, begin, end)

    def reads(self, begin: int, end: int) -> float:
        """Return the KV tokens that positions ``begin`` to ``end`` read, summed over steps."""
        return _between(self._reads, begin, end)

    def unit(self, begin: int, end: int) -> Unit:
        """Return the means over positions ``begin`` to ``end``."""
        n = end - begin
        return Unit(
            self.density(begin, end),
            _between(self._prefill, begin, end) / n,
            _between(self._reads, begin, end) / n,
            _between(self._output, begin, end) / n,
        )

    def left_unit(self, begin: int, end: int) -> Unit:
        """Return the unit at the left cursor when ``begin`` to ``end`` remain."""
        return self.unit(begin, min(end, begin + self._unit_requests))

    def right_unit(self, begin: int, end: int, below: float) -> Unit | None:
        """Return the unit at the right cursor: neighbours with a density less than ``below``.

        None if there is none. The limit matters in a small pool, where a unit of fixed size would
        consist mostly of requests that are not memory-intensive.
        """
        start = max(begin, end - self._unit_requests)
        above = np.flatnonzero(self._density[start:end] >= below)
        if len(above):
            start += int(above[-1]) + 1
        return self.unit(start, end) if start < end else None


def _sums(values: FloatArray) -> FloatArray:
    """Return the sums of the first 0, 1, ... values."""
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:])
    return sums


def _between(sums: FloatArray, begin: int, end: int) -> float:
    return sums.item(end) - sums.item(begin)
