"""Communication between GPUs: all-reduces, gathered logits, and sends between pipeline stages."""

from dataclasses import dataclass

import numpy as np

from bssim.cost_models.hardware import EfficiencyCurve, HardwareSpec
from bssim.cost_models.llm import Shard
from bssim.cost_models.step_cost import FloatArray, Scalars

ALL_REDUCE_CURVES = {
    "vllm": "all_reduce",
    "nccl": "all_reduce_nccl",
    "trtllm": "all_reduce_trtllm",
}
"""Implementation of the all-reduce -> its curve. vLLM uses its one-shot and two-shot kernels up to
8 MB and NCCL above; its rows were measured with this choice of kernel."""


@dataclass(frozen=True, eq=False)
class Collectives:
    """Prices the messages of one step of a tensor-parallel group, in seconds."""

    part: Shard
    hardware: HardwareSpec
    share: EfficiencyCurve
    """Share of the link's rate by message ``bytes``, for this group size."""
    gather_share: EfficiencyCurve
    """The same for NCCL, which gathers the logits."""
    source: str

    @classmethod
    def of(cls, part: Shard, hardware: HardwareSpec, all_reduce: str) -> "Collectives":
        """Return the collectives of an engine whose all-reduce is ``all_reduce``."""
        curve = hardware.curve(ALL_REDUCE_CURVES[all_reduce])
        gather = hardware.curve(ALL_REDUCE_CURVES["nccl"])
        return cls(
            part,
            hardware,
            curve.slice(gpus=part.tp),
            gather.slice(gpus=part.tp),
            f"{curve.source}; kernels: {all_reduce}",
        )

    @property
    def all_reduces(self) -> int:
        """All-reduces of a step: after attention, after the MLP, after the embedding."""
        return 2 * self.part.llm.num_layers + 1

    def message_bytes(self, rows: Scalars) -> FloatArray:
        """Return the bytes of the hidden states of ``rows`` tokens."""
        width = self.part.llm.hidden_size * self.part.llm.dtype_bytes
        return np.asarray(np.asarray(rows, dtype=np.float64) * width)

    def all_reduce_s(self, rows: Scalars) -> FloatArray:
        """Return the seconds of one all-reduce: a ring sends 2 (tp - 1) / tp of the message."""
        hw, message = self.hardware, self.message_bytes(rows)
        moved = 2 * (self.part.tp - 1) / self.part.tp * message
        latency = hw.fixed_s["all_reduce"] + 2 * (self.part.tp - 1) * hw.link_latency_s
        return np.asarray(latency + moved / (hw.link_bandwidth * self.share.at(bytes=message)))

    def gathered_bytes(self, sampled: Scalars) -> FloatArray:
        """Return the bytes of logits that one GPU receives; they do not depend on the kernel."""
        llm = self.part.llm
        logits = np.asarray(sampled, dtype=np.float64) * llm.vocab_size * llm.dtype_bytes
        return np.asarray((self.part.tp - 1) / self.part.tp * logits)

    def gather_s(self, sampled: Scalars) -> FloatArray:
        """Return the seconds of gathering the logits of the sampled tokens on every GPU."""
        hw, moved = self.hardware, self.gathered_bytes(sampled)
        message = np.maximum(moved * self.part.tp / max(self.part.tp - 1, 1), 1.0)
        latency = hw.fixed_s["all_reduce"] + (self.part.tp - 1) * hw.link_latency_s
        return np.asarray(
            latency + moved / (hw.link_bandwidth * self.gather_share.at(bytes=message))
        )

    def send_s(self, rows: Scalars) -> FloatArray:
        """Return the seconds of sending hidden states and residual to the next pipeline stage.

        The rate is what NCCL reaches at that size; each of the ``tp`` GPUs sends an equal share.
        """
        hw = self.hardware
        message = np.maximum(2 * self.message_bytes(rows) / self.part.tp, 1.0)
        share = hw.curve(ALL_REDUCE_CURVES["nccl"]).slice(gpus=2).at(bytes=message)
        return np.asarray(hw.link_latency_s + message / (hw.link_bandwidth * share))
