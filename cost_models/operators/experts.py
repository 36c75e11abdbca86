"""Routed experts: how many tokens each expert gets, and what that costs one GPU.

Routing is skewed. Tokens per expert follow the power law with which `aiconfigurator-core` measures
MoE layers ("power_law_1.01"): loads have density x^-1.01 between 1 and 0.8 times the tokens of the
batch (0.01 and 2 if there are fewer assignments than experts) and are scaled to the batch. Here the
loads are the quantiles of that law, so nothing is random. Fewer experts get tokens than with even
routing, and with expert parallelism the GPU with the busiest experts sets the time.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bssim.cost_models.llm import Shard
from bssim.cost_models.operators.gemms import INPUT_BYTES
from bssim.cost_models.step_cost import FloatArray, Scalars

SKEW = 1.01
SKEW_SOURCE = "routing skew: power law 1.01, as aiconfigurator-core measures MoE layers"
_DRAWS = 16
"""Number of assignments of experts to GPUs over which the load of the busiest GPU is averaged."""
_BATCHES: FloatArray = np.asarray(2.0 ** np.arange(0, 18), dtype=np.float64)


def expert_loads(tokens: FloatArray, experts: int, per_token: int) -> FloatArray:
    """Return the tokens of each expert, shape (batches, experts), in decreasing order.

    No expert gets a token twice.
    """
    rank = (np.arange(experts) + 0.5) / experts
    many = tokens * per_token > experts
    low = np.where(many, 1.0, 0.01)[:, None]
    high = np.where(many, np.maximum(0.8 * tokens, 1.0), 2.0)[:, None]
    power = 1.0 - SKEW
    loads = ((high**power - low**power) * rank[::-1] + low**power) ** (1 / power)
    loads = np.sort(loads, axis=1)[:, ::-1]
    total = (tokens * per_token)[:, None]
    for _ in range(8):  # the other experts get the excess over the batch, in proportion
        loads = np.minimum(loads * (total / loads.sum(axis=1, keepdims=True)), tokens[:, None])
    return np.asarray(loads)


@dataclass(frozen=True)
class ExpertMlp:
    """The routed experts of an MoE layer on one GPU.

    Without expert parallelism each expert is split over the GPUs like an MLP. With it, each GPU
    holds ``1 / tp`` of the experts, whole, and computes them for all tokens of the replica.
    """

    part: Shard
    expert_parallel: bool = False

    @property
    def shards(self) -> int:
        """GPUs that one expert is split over."""
        return 1 if self.expert_parallel else self.part.tp

    @property
    def weights(self) -> float:
        """Weight elements of one expert on one GPU."""
        return self.part.llm.expert_params / self.shards

    @property
    def gemm_format(self) -> str:
        """Format in which the experts multiply."""
        return self.part.llm.precision.gemm_format("experts")

    @property
    def weight_bytes(self) -> float:
        """Weight bytes of one expert on one GPU."""
        return self.weights * self.part.llm.precision.weight_bytes("experts")

    @cached_property
    def _on_grid(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Three values per batch size: the share of all experts that get tokens, the same on the
        busiest GPU, and the busiest GPU's share of the rows times the number of GPUs."""
        llm = self.part.llm
        loads = expert_loads(_BATCHES, llm.num_experts, llm.experts_per_token)
        touched = 1 - (1 - np.minimum(loads / _BATCHES[:, None], 1.0)) ** _BATCHES[:, None]
        if self.shards == self.part.tp:
            share = touched.mean(axis=1)
            return share, share, np.ones_like(share)
        rng = np.random.default_rng(0)
        rows, active = np.zeros(len(_BATCHES)), np.zeros(len(_BATCHES))
        each = -(-llm.num_experts // self.part.tp)
        for _ in range(_DRAWS):
            order = rng.permutation(llm.num_experts)
            parts = [order[first : first + each] for first in range(0, llm.num_experts, each)]
            per_gpu = np.stack([loads[:, part].sum(axis=1) for part in parts])
            busiest = per_gpu.argmax(axis=0)
            rows += per_gpu.max(axis=0) / per_gpu.sum(axis=0) * self.part.tp
            hit = np.stack([touched[:, part].sum(axis=1) for part in parts])
            active += hit[busiest, np.arange(len(_BATCHES))] / each
        return touched.mean(axis=1), active / _DRAWS, rows / _DRAWS

    def least_flops(self, tokens: Scalars) -> FloatArray:
        """Return the FLOPs of one layer's experts on the busiest GPU, at the batch size with the
        most even load."""
        pairs = self.part.llm.experts_per_token * np.asarray(tokens, dtype=np.float64)
        share = self.shards / self.part.tp * float(self._on_grid[2].min())
        return np.asarray(2.0 * self.weights * pairs * share)

    def _at(self, which: int, tokens: Scalars) -> FloatArray:
        logs = np.log(np.maximum(np.asarray(tokens, dtype=np.float64), 1.0))
        return np.asarray(np.interp(logs, np.log(_BATCHES), self._on_grid[which]))

    def active_experts(self, tokens: Scalars) -> FloatArray:
        """Return how many experts of a layer the busiest GPU loads for ``tokens`` tokens."""
        held = self.part.llm.num_experts * self.shards / self.part.tp
        busy = np.minimum(np.asarray(tokens, dtype=np.float64), 1.0)
        return np.asarray(held * self._at(1, tokens) * busy)

    def rows(self, tokens: Scalars) -> FloatArray:
        """Return the rows that the busiest GPU computes: (token, expert) pairs."""
        pairs = self.part.llm.experts_per_token * np.asarray(tokens, dtype=np.float64)
        return np.asarray(pairs * self.shards / self.part.tp * self._at(2, tokens))

    def flops(self, tokens: Scalars) -> FloatArray:
        """Return the FLOPs of one layer's experts on the busiest GPU."""
        return np.asarray(2.0 * self.weights * self.rows(tokens))

    def bytes(self, tokens: Scalars) -> FloatArray:
        """Return the bytes of one layer's experts: weights of experts with tokens, inputs, outputs.

        Each expert gathers its tokens, and the results are added up per token.
        """
        llm, size = self.part.llm, self.part.llm.dtype_bytes
        inputs = INPUT_BYTES.get(self.gemm_format, size)
        width = llm.hidden_size * (inputs + size)
        width += llm.mlp_matrices * llm.moe_intermediate_size / self.shards * size
        return np.asarray(
            self.weight_bytes * self.active_experts(tokens) + self.rows(tokens) * width
        )
