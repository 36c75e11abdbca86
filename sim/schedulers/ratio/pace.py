"""How many tokens a step of `ratio` computes, from the price at which the compute lasts."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bssim.sim.engine import UNLIMITED
from bssim.sim.schedulers.blendserve import Loads
from bssim.sim.schedulers.ratio.future_kv import FutureKv
from bssim.sim.schedulers.ratio.order import BoolArray
from bssim.sim.schedulers.ratio.step_tokens import StepTokens

FloatArray = npt.NDArray[np.float64]

FULL_SHARE = 0.75
"""Waiting packed requests are assumed to fill at least this share of the packed limit. While the
cache fills for the first time, its current use says little about later steps."""
DRAINS = (0.5, 0.75, 1.0)
"""If lengths are unknown, the price is averaged over these shares of the expected later steps. The
expectation includes long tails that few requests reach. A token kept for a drain that ends early
saves nothing, but a token spent below the kink of the overlap model does."""


class Pace:
    """The remaining compute and KV reads, the price, and the budget of a step."""

    def __init__(self, tokens: StepTokens) -> None:
        self._tokens = tokens
        self._low, self._high, self._part = tokens.around(tokens.full_price)
        self._carry = 0.0
        nothing = np.zeros(0)
        self._load, self._reads, self._packed = nothing, nothing, nothing.astype(np.bool_)
        self._supply = 0.0
        # Of paced and of packed requests.
        self._reads_left = [0.0, 0.0]
        self._used: list[int] = []
        """Requests used up since the last price."""
        self.budget: float = 0.0
        """Prompt tokens that the step may still compute."""
        self.least = tokens.multiple
        """Tokens that a packed request may always compute in a step."""

    def restart(self, loads: Loads, packed: BoolArray) -> None:
        """Use the loads of a new plan; ``packed``: which of its requests are packed."""
        self._load = loads.prefill_tokens + loads.output_tokens
        self._packed = packed
        self._reads = loads.kv_token_steps.copy()
        self._supply = _sum(0.0, self._load)
        self._reads_left = [_sum(0.0, self._reads[k]) for k in (~packed, packed)]
        self._used.clear()

    def use_up(self, requests: Sequence[int]) -> None:
        """Remove requests from the remaining compute and reads. A second call has no effect."""
        self._used += requests

    def _settle(self) -> None:
        """Take what was used up from the remaining compute and reads."""
        used = np.array(list(dict.fromkeys(self._used)), dtype=np.int64)
        self._used.clear()
        load, reads, packed = self._load[used], self._reads[used], self._packed[used]
        self._supply = _sum(self._supply, -load)
        paced_reads, packed_reads = self._reads_left
        self._reads_left = [_sum(paced_reads, -reads[~packed]), _sum(packed_reads, -reads[packed])]
        self._load[used] = self._reads[used] = 0.0

    def set_price(self, future: FutureKv, full: float, *, crowded: bool, certain: bool) -> None:
        """Find the price at which the remaining compute lasts as long as the remaining reads.

        ``full``: KV tokens held in the steps after those of ``future``. ``crowded``: whether paced
        requests fill them too. ``certain``: whether the later steps are known.
        """
        self._settle()
        steps, kv = future.profile()
        left = future.remaining_tokens()
        paced_reads, packed_reads = self._reads_left
        steps = np.append(steps, (packed_reads + paced_reads * crowded) / full)
        kv = np.append(kv, full)
        drains = (1.0,) if certain else DRAINS
        price = self._tokens.price_for(self._supply + left, steps, kv, drains)
        self._low, self._high, self._part = self._tokens.around(price)

    def begin_step(self, decodes: int, context_tokens: float) -> None:
        """Set the budget of a step in which ``decodes`` requests read ``context_tokens``."""
        level = self._tokens.level(context_tokens)
        low, high = self._low[level], self._high[level]
        wanted = low + self._part * (high - low) + self._carry
        whole = high if wanted - low >= high - wanted else low
        carry, most = wanted - whole, high - low
        self._carry = most if carry > most else -most if carry < -most else carry
        self.budget = whole - decodes

    def free_step(self) -> None:
        """Set no budget."""
        self.budget = UNLIMITED


def _sum(start: float, values: FloatArray) -> float:
    """Add values one after another. The result depends on nothing else, unlike that of `sum`."""
    return float(np.add.accumulate(np.append(start, values))[-1])
