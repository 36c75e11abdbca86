"""How many tokens a step of `ratio` computes, from the price at which the compute lasts."""

import numpy as np

from bssim.sim.engine import UNLIMITED
from bssim.sim.schedulers.blendserve import Loads
from bssim.sim.schedulers.ratio.future_kv import FutureKv
from bssim.sim.schedulers.ratio.order import BoolArray
from bssim.sim.schedulers.ratio.step_tokens import StepTokens

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
        self._price = tokens.full_price
        self._carry = 0.0
        self._load: list[float] = []
        self._reads: list[float] = []
        self._packed: list[bool] = []
        self._supply = 0.0
        # Of paced and of packed requests.
        self._reads_left = [0.0, 0.0]
        self.budget: float = 0.0
        """Prompt tokens that the step may still compute."""
        self.least = tokens.multiple
        """Tokens that a packed request may always compute in a step."""

    def restart(self, loads: Loads, packed: BoolArray) -> None:
        """Use the loads of a new plan; ``packed``: which of its requests are packed."""
        self._load = (loads.prefill_tokens + loads.output_tokens).tolist()
        self._packed = packed.tolist()
        self._reads = loads.kv_token_steps.tolist()
        self._supply = float(sum(self._load))
        self._reads_left = [float(sum(loads.kv_token_steps[k].tolist())) for k in (~packed, packed)]

    def use_up(self, request: int) -> None:
        """Remove a request from the remaining compute and reads. A second call has no effect."""
        self._supply -= self._load[request]
        self._reads_left[self._packed[request]] -= self._reads[request]
        self._load[request] = self._reads[request] = 0.0

    def set_price(self, future: FutureKv, full: float, *, crowded: bool, certain: bool) -> None:
        """Find the price at which the remaining compute lasts as long as the remaining reads.

        ``full``: KV tokens held in the steps after those of ``future``. ``crowded``: whether paced
        requests fill them too. ``certain``: whether the later steps are known.
        """
        steps, kv = future.profile()
        left = future.remaining_tokens()
        paced_reads, packed_reads = self._reads_left
        steps = np.append(steps, (packed_reads + paced_reads * crowded) / full)
        kv = np.append(kv, full)
        drains = (1.0,) if certain else DRAINS
        prices = [
            self._tokens.price_for(self._supply + left, steps * share, kv) for share in drains
        ]
        self._price = sum(prices) / len(prices)

    def begin_step(self, decodes: int, context_tokens: float) -> None:
        """Set the budget of a step in which ``decodes`` requests read ``context_tokens``."""
        low, high, part = self._tokens.around(self._price, context_tokens)
        wanted = low + part * (high - low) + self._carry
        whole = high if wanted - low >= high - wanted else low
        carry, most = wanted - whole, high - low
        self._carry = most if carry > most else -most if carry < -most else carry
        self.budget = whole - decodes

    def free_step(self) -> None:
        """Set no budget."""
        self.budget = UNLIMITED
