"""Seconds of attention, for each group of layers with the same attention."""

from dataclasses import dataclass

import numpy as np

from bssim.cost_models.hardware import EfficiencyCurve, HardwareSpec
from bssim.cost_models.llm import AttentionGroup, Shard
from bssim.cost_models.operators.decode_floor import decode_envelope
from bssim.cost_models.operators.priced import OperatorSeconds
from bssim.cost_models.step_cost import DecodeLimits, FloatArray, StepWork


@dataclass(frozen=True, eq=False)
class AttentionCost:
    """Prices prefill and decode attention on one GPU, which holds a ``part`` of the model.

    Products use the activations' format even if the KV cache has a smaller one, because the
    kernels expand what they read. TensorRT-LLM's attention over prompts is the exception: it
    multiplies in fp8 if the weights are fp8 or fp4 and the KV cache is fp8 (NVIDIA/TensorRT-LLM,
    tensorrt_llm/bench/build/build.py: "FP8 FMHA if NVFP4 or FP8 quantization is enabled"). Only
    its kernels have the curve ``prefill_attention_fp8``.
    """

    part: Shard
    hardware: HardwareSpec
    decode_share: EfficiencyCurve
    """Share of the bandwidth, for KV of the model's type."""
    peak: float
    """FLOP/s of the activations' format."""
    prefill_share: EfficiencyCurve
    """Share of `prefill_peak`."""
    prefill_peak: float
    """FLOP/s of the format in which attention over prompts multiplies."""

    @classmethod
    def of(cls, part: Shard, hardware: HardwareSpec) -> "AttentionCost":
        """Return the prices on ``hardware``, whose curves say how fast an fp8 KV cache is read.

        Raises InputError for a format without a peak.
        """
        llm = part.llm
        small = llm.kv_dtype_bytes < llm.dtype_bytes
        curve = hardware.curve("decode_attention_fp8" if small else "decode_attention")
        peak = hardware.peak(llm.precision.activation_format)
        in_fp8 = hardware.optional.get("prefill_attention_fp8")
        if small and in_fp8 and llm.precision.gemm_format("qkv_proj") in ("fp8", "fp4"):
            return cls(part, hardware, curve, peak, in_fp8, hardware.peak("fp8"))
        return cls(part, hardware, curve, peak, hardware.prefill_attention, peak)

    def prefill(self, work: StepWork) -> list[OperatorSeconds]:
        """Return prefill attention of each group of layers."""
        groups = self.part.llm.attention_groups
        return [self._prefill(group, work.seen_by(group)) for group in groups]

    def decode(self, work: StepWork) -> list[OperatorSeconds]:
        """Return decode attention of each group of layers."""
        groups = self.part.llm.attention_groups
        return [self._decode(group, work.seen_by(group)) for group in groups]

    def _prefill(self, group: AttentionGroup, work: StepWork) -> OperatorSeconds:
        hw = self.hardware
        chunks = np.maximum(np.asarray(work.prefill_requests, dtype=np.float64), 1.0)
        pairs = np.asarray(work.prefill_attention_pairs, dtype=np.float64)
        flops = pairs * self.part.group_prefill_flops(group)
        tokens = np.asarray(work.prefill_context_tokens) + np.asarray(work.prefill_tokens)
        moved = tokens * self.part.group_kv_bytes(group)
        heads = chunks * (group.num_heads / self.part.tp)
        share = self.prefill_share.at(heads=heads, keys=tokens / chunks)
        compute = flops / (self.prefill_peak * share)
        memory = moved / (hw.bandwidth * self.decode_share.best)
        launch = group.layers * hw.fixed_s["prefill_attention"]
        return OperatorSeconds(
            "prefill_attention",
            "compute",
            np.where(pairs > 0, launch + np.maximum(compute, memory), 0.0),
            flops,
            moved,
            compute >= memory,
            self.prefill_share.source,
        )

    def _decode(self, group: AttentionGroup, work: StepWork) -> OperatorSeconds:
        hw = self.hardware
        batch = np.asarray(work.decode_requests, dtype=np.float64)
        context = np.asarray(work.decode_context_tokens, dtype=np.float64)
        flops = context * self.part.group_decode_flops(group)
        moved = context * self.part.group_kv_bytes(group)
        some = np.maximum(batch, 1.0)
        share = self.decode_share.at(kv_heads=some * self._kv_heads(group), context=context / some)
        memory = moved / (hw.bandwidth * share)
        compute = flops / (self.peak * hw.prefill_attention.best)
        launch = group.layers * hw.fixed_s["decode_attention"]
        return OperatorSeconds(
            "decode_attention",
            "memory",
            np.where(batch > 0, launch + np.maximum(compute, memory), 0.0),
            flops,
            moved,
            compute >= memory,
            self.decode_share.source,
        )

    def kv_read_s(self, work: StepWork) -> FloatArray:
        """Return the seconds to read the KV of a step once, at the best share of the bandwidth."""
        found = np.zeros(np.shape(work.decode_context_tokens))
        for group in self.part.llm.attention_groups:
            seen = work.seen_by(group)
            tokens = np.asarray(seen.decode_context_tokens) + np.asarray(
                seen.prefill_context_tokens
            )
            found = found + tokens * self.part.group_kv_bytes(group)
        return np.asarray(found / (self.hardware.bandwidth * self.decode_share.best))

    def least(self, work: StepWork) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the least seconds of prefill and decode, and of reading the decodes' KV."""
        hw = self.hardware
        prefill = np.zeros(np.shape(work.decode_context_tokens))
        decode, read = prefill, prefill
        flop_rate = self.peak * hw.prefill_attention.best
        prefill_rate = self.prefill_peak * self.prefill_share.best
        for group in self.part.llm.attention_groups:
            seen = work.seen_by(group)
            pairs = np.asarray(seen.prefill_attention_pairs, dtype=np.float64)
            context = np.asarray(seen.decode_context_tokens, dtype=np.float64)
            prefill = prefill + pairs * self.part.group_prefill_flops(group) / prefill_rate
            kv = context * self.part.group_kv_bytes(group)
            kv_s = kv / (hw.bandwidth * self.decode_share.best)
            flops_s = context * self.part.group_decode_flops(group) / flop_rate
            decode = decode + np.maximum(kv_s, flops_s)
            read = read + kv_s
        return prefill, decode, read

    def least_decode_s(self, work: StepWork, limits: DecodeLimits) -> float:
        """Return the least seconds of the decodes of ``work``, scalars, in any batches."""
        decodes = float(work.decode_requests)
        if not decodes:
            return 0.0
        seconds = 0.0
        flop_rate = self.peak * self.hardware.prefill_attention.best
        for group in self.part.llm.attention_groups:
            seen = work.seen_by(group)
            envelope = decode_envelope(
                self.decode_share,
                self._kv_heads(group),
                self.part.group_kv_bytes(group) / self.hardware.bandwidth,
                self.part.group_decode_flops(group) / flop_rate,
                limits,
            )
            context = float(seen.decode_context_tokens) / decodes
            seconds += decodes * float(np.interp(context, envelope.rows, envelope.seconds))
        return seconds

    def _kv_heads(self, group: AttentionGroup) -> float:
        """Return the KV heads of a request on one GPU."""
        shards = self.part.group_kv_shards(group)
        return 1.0 if self.part.llm.is_mla else group.num_kv_heads / shards
