"""The cost model of the BlendServe paper (section 4): peak rates only."""

import numpy as np

from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec, Shard
from bssim.cost_models.step_cost import FloatArray, OperatorCost, StepCost, StepWork


class PaperCostModel:
    """2 P FLOPs per token and KV reads at peak; no prefill attention, no fixed costs.

    Like every cost model it takes ``llm`` in the formats that the GPU multiplies in;
    `make_cost_model` applies `as_run` first, which expands formats that the GPU lacks.

    Each weight multiplies at the peak of its format. Layers with a window read only the KV inside
    it. The dense work of a step takes at least the time to load the weights once at peak bandwidth;
    otherwise a step of one token would be free.
    """

    name = "paper"

    def __init__(self, llm: LLMSpec, hardware: HardwareSpec, tp: int = 1) -> None:
        """Raise InputError if ``tp`` GPUs cannot split the model."""
        self._part = Shard(llm, tp)
        weights = llm.used_weights_by_format()
        self.llm = llm
        self.hardware = hardware
        self.tp = tp
        peak = hardware.mean_peak(weights)
        self._token_s = 2.0 * llm.num_active_params / (peak * tp)
        self._weights_s = llm.weight_bytes / (hardware.bandwidth * tp)
        moved = 2 * (tp - 1) / tp * llm.hidden_size * llm.dtype_bytes
        self._all_reduce_s = 2 * llm.num_layers * moved / hardware.link_bandwidth

    def _memory_s(self, work: StepWork) -> FloatArray:
        """Return the seconds in which decode requests read the KV that they attend to."""
        llm, bandwidth = self.llm, self.hardware.bandwidth
        return np.asarray(
            sum(
                np.asarray(work.seen_by(group).decode_context_tokens)
                * (llm.group_kv_bytes(group) / (bandwidth * self._part.group_kv_shards(group)))
                for group in llm.attention_groups
            )
        )

    def step_cost(self, work: StepWork) -> StepCost:
        """Return the cost of each step of ``work``, in seconds."""
        rows = np.asarray(work.gemm_tokens, dtype=np.float64)
        weights = np.where(rows > 0, self._weights_s, 0.0)
        memory = self._memory_s(work)
        return StepCost(
            compute_s=np.maximum(rows * self._token_s, weights),
            memory_s=memory,
            communication_s=rows * self._all_reduce_s,
            fixed_s=np.zeros_like(rows),
            bandwidth_s=weights + memory,
        )

    def ideal_cost(self, work: StepWork) -> StepCost:
        """Return the cost without weight loads and padding: the paper's Tcomp and Tmem."""
        tokens: FloatArray = np.asarray(work.tokens, dtype=np.float64)
        memory = self._memory_s(work)
        return StepCost(
            compute_s=tokens * self._token_s,
            memory_s=memory,
            communication_s=tokens * self._all_reduce_s,
            fixed_s=np.zeros_like(tokens),
            bandwidth_s=memory,
        )

    def operators(self, work: StepWork) -> list[OperatorCost]:
        """Return GEMM and attention of one step (scalar fields); they sum to ``step_cost``."""
        cost = self.step_cost(work)
        rows = float(work.gemm_tokens)
        attention = sum(
            float(work.seen_by(group).decode_context_tokens) * self.llm.group_decode_flops(group)
            for group in self.llm.attention_groups
        )
        source = "paper: section 4, at peak constants"
        flops = 2.0 * self.llm.num_active_params * rows / self.tp
        compute_bound = rows * self._token_s >= self._weights_s
        found = [
            OperatorCost(
                name="gemm",
                seconds=float(cost.compute_s),
                flops=flops,
                bytes=self.llm.weight_bytes / self.tp,
                bound="compute" if compute_bound else "memory",
                resource="compute",
                provenance=source,
            ),
            OperatorCost(
                name="decode_attention",
                seconds=float(cost.memory_s),
                flops=attention / self.tp,
                bytes=float(cost.memory_s) * self.hardware.bandwidth,
                bound="memory",
                resource="memory",
                provenance=source,
            ),
            OperatorCost(
                name="all_reduce",
                seconds=float(cost.communication_s),
                flops=0.0,
                bytes=rows * self._all_reduce_s * self.hardware.link_bandwidth,
                bound="communication",
                resource="communication",
                provenance=self.hardware.sources["link_bandwidth"],
            ),
        ]
        return [operator for operator in found if operator.seconds > 0]
