"""How many tokens a step should compute next to its KV reads, for every price of compute.

All steps share one supply: the remaining compute. Minimising the sum of step times for a given
supply means that each step takes the n that minimises ``seconds(n, KV read) - price x n``, with one
price for all steps (the Lagrange multiplier of the supply). At a low price, a step computes only
what the weight load or the KV reads hide. At the price of compute that runs alone, many n are
equally good, and the smallest keeps the most for later.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bssim.cost_models.step_cost import CostModel, OverlapModel, StepWork
from bssim.sim.engine import EngineConfig

FloatArray = npt.NDArray[np.float64]

KV_LEVELS = 64
"""Number of equal parts of the capacity at which KV reads are tabulated."""
PRICE_LEVELS = 32
"""Number of prices, in equal parts of the price of compute that runs alone."""
TOLERANCE = 0.002
"""Savings below this share of a step's time are ignored, because the tables are rounded."""
CANDIDATES = 64
"""Number of token counts to try, unless `batch_multiple` leaves fewer."""
DECODES = 32
"""Decode requests of a tabulated step, which read its KV and count in its tokens. Their number
slightly affects how well attention uses the bandwidth."""


class StepTokens:
    """The table of best token counts by price and KV read."""

    def __init__(
        self,
        cost_model: CostModel,
        overlap: OverlapModel,
        engine: EngineConfig,
        kv_capacity_tokens: int,
    ) -> None:
        """Price one step for every token count and KV level, so no step is priced at run time."""
        most = engine.max_num_batched_tokens
        self.multiple = max(engine.batch_multiple, 1)
        stride = self.multiple * max(1, most // (self.multiple * CANDIDATES))
        counts = np.unique(np.append(np.arange(stride, most, stride), most)).astype(np.float64)
        kv = kv_capacity_tokens * np.arange(KV_LEVELS + 1) / KV_LEVELS
        n, k = (a.ravel() for a in np.meshgrid(counts, kv))
        padding = -n % self.multiple
        decodes = np.minimum(n, DECODES)
        work = StepWork(
            decode_requests=decodes,
            decode_context_tokens=k,
            prefill_requests=1.0,
            prefill_tokens=n - decodes,
            padding_tokens=padding,
        )
        seconds = np.asarray(overlap.step_seconds(cost_model.step_cost(work)), dtype=np.float64)
        seconds = seconds.reshape(KV_LEVELS + 1, len(counts))
        reads = np.array([0.0, kv_capacity_tokens])
        bare = StepWork(decode_requests=float(DECODES), decode_context_tokens=reads)
        fixed, full = np.asarray(overlap.step_seconds(cost_model.step_cost(bare))).tolist()
        self.fixed_share: float = fixed / full if full > 0.0 else 1.0
        """What a step costs without KV reads, as a share of one that reads a full cache. Cost
        models that were fitted to few or noisy steps may have free decode steps."""
        alone = float(np.min(seconds[0] / counts))
        prices = alone * np.arange(1, PRICE_LEVELS + 1) / PRICE_LEVELS
        # Shape (prices, KV levels, counts); the first count within tolerance of the best.
        value = seconds - prices[:, None, None] * counts
        good = value <= value.min(axis=2, keepdims=True) + TOLERANCE * seconds.min(axis=1)[:, None]
        best = counts[np.argmax(good, axis=2)]
        # A higher price never means fewer tokens, also after rounding.
        self._best: FloatArray = np.maximum.accumulate(best, axis=0)
        self._rows: list[list[float]] = self._best.tolist()
        self._level = KV_LEVELS / max(kv_capacity_tokens, 1)
        self.full_price = PRICE_LEVELS - 1.0

    def around(self, price: float) -> tuple[list[float], list[float], float]:
        """Return the tokens at the price levels below and above, by KV level, and the part above.

        ``price`` is a fractional level. Steps should take the tokens of one of the two levels, in
        the proportion of the part, because the seconds of a step need not be convex in its tokens:
        a value between the two may cost more than their mixture.
        """
        low = int(price)
        return self._rows[low], self._rows[min(low + 1, PRICE_LEVELS - 1)], price - low

    def level(self, kv_tokens: float) -> int:
        """Return the KV level of a step that reads ``kv_tokens``."""
        level = int(kv_tokens * self._level + 0.5)
        return level if level < KV_LEVELS else KV_LEVELS

    def price_for(
        self,
        supply_tokens: float,
        steps: FloatArray,
        kv_tokens: FloatArray,
        shares: Sequence[float] = (1.0,),
    ) -> float:
        """Return the price at which the later steps use up the remaining tokens.

        ``steps`` and ``kv_tokens``, shape (phases,): number of steps and KV tokens read in each.
        The price is at most that of compute alone, and 0 if the tokens do not suffice for the
        lowest price. ``shares``: the price is the mean of those for these shares of the steps.
        """
        level = np.minimum(kv_tokens * self._level + 0.5, KV_LEVELS).astype(np.int64)
        best = self._best[:, level]
        prices = [self._price_at(supply_tokens, best @ (steps * share)) for share in shares]
        return sum(prices) / len(prices)

    def _price_at(self, supply_tokens: float, demand: FloatArray) -> float:
        """Return the price at which ``demand``, shape (prices,), is the supply."""
        if supply_tokens >= demand[-1]:
            return self.full_price
        at = int(np.searchsorted(demand, supply_tokens, side="right"))
        if at == 0:
            return 0.0
        return float(at - 1 + (supply_tokens - demand[at - 1]) / (demand[at] - demand[at - 1]))
