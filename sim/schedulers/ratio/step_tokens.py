"""How many tokens a step should compute beside its KV reads, at every price of compute.

Steps share one supply of compute: what is left to compute. Minimising the sum of step times under
it gives each step the n that minimises ``seconds(n, KV read) - price x n``, with one price for all
steps (the multiplier of the supply). At a low price only what rides free under the weight load or
the KV reads is worth computing; at the price of compute that runs alone, any step is as good as
another, and the smallest n of those keeps the most for later.
"""

import numpy as np
import numpy.typing as npt

from bssim.cost_models.step_cost import CostModel, OverlapModel, StepWork
from bssim.sim.engine.config import EngineConfig

FloatArray = npt.NDArray[np.float64]

KV_LEVELS = 64
"""KV reads are tabulated at this many equal parts of the capacity."""
PRICE_LEVELS = 32
"""Prices, in equal parts of the price of compute alone."""
TOLERANCE = 0.002
"""Share of a step's time below which a saving is none: prices and tables are rounded."""
CANDIDATES = 64
"""Token counts tried where `batch_multiple` does not say which are worth it."""
DECODES = 32
"""Requests that read the KV of a tabulated step, part of its tokens: how well attention uses the
bandwidth depends a little on their number, and nobody reads nothing."""


class StepTokens:
    """The table of best token counts by price and KV read."""

    def __init__(
        self,
        cost_model: CostModel,
        overlap: OverlapModel,
        engine: EngineConfig,
        kv_capacity_tokens: int,
    ) -> None:
        """Price one step for every token count and KV level; nothing is priced at run time."""
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
        alone = float(np.min(seconds[0] / counts))
        prices = alone * np.arange(1, PRICE_LEVELS + 1) / PRICE_LEVELS
        # Shape (prices, KV levels, counts); the first count within tolerance of the best.
        value = seconds - prices[:, None, None] * counts
        good = value <= value.min(axis=2, keepdims=True) + TOLERANCE * seconds.min(axis=1)[:, None]
        best = counts[np.argmax(good, axis=2)]
        # A higher price never asks for less; rounding must not either.
        self._best: FloatArray = np.maximum.accumulate(best, axis=0)
        self._rows: list[list[float]] = self._best.tolist()
        self._level = KV_LEVELS / max(kv_capacity_tokens, 1)
        self.full_price = PRICE_LEVELS - 1.0

    def around(self, price: float, kv_tokens: float) -> tuple[float, float, float]:
        """Return the tokens of a step at the price levels below and above, and the part above.

        ``price`` is a level, in parts between two of them. Between its two levels a step may cost
        more than their mixture, for the seconds of a step need not be convex in its tokens: steps
        are to take one or the other, in the proportion of the part.
        """
        level = min(int(kv_tokens * self._level + 0.5), KV_LEVELS)
        low = int(price)
        high = min(low + 1, PRICE_LEVELS - 1)
        return self._rows[low][level], self._rows[high][level], price - low

    def price_for(self, supply_tokens: float, steps: FloatArray, kv_tokens: FloatArray) -> float:
        """Return the price at which the steps to come use up the tokens left to compute.

        ``steps`` and ``kv_tokens``, shape (phases,): for how many steps how much KV is read. The
        price is at most that of compute alone, 0 if there is not enough even for the lowest.
        """
        level = np.minimum(kv_tokens * self._level + 0.5, KV_LEVELS).astype(np.int64)
        demand = self._best[:, level] @ steps
        if supply_tokens >= demand[-1]:
            return self.full_price
        at = int(np.searchsorted(demand, supply_tokens, side="right"))
        if at == 0:
            return 0.0
        return float(at - 1 + (supply_tokens - demand[at - 1]) / (demand[at] - demand[at - 1]))
