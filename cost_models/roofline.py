"""The roofline cost model: every operator is bound by FLOPs or by bytes, at a measured efficiency.

An operator takes ``fixed + max(flops / (C e_c), bytes / (BW e_m))`` seconds, with ``e_c`` and
``e_m`` from the hardware's curves at the operator's size. A GEMM has one curve for both: what it
loses to tiles, waves and launches it loses on either side of the ridge.
"""

from dataclasses import dataclass

import numpy as np

from bssim.cost_models.engine_costs import NO_ENGINE, EngineCosts
from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm.spec import LLMSpec
from bssim.cost_models.operators import ExpertMlp, Gemm, dense_gemms, lm_head_gemm
from bssim.cost_models.step_cost import (
    BoolArray,
    FloatArray,
    OperatorCost,
    Scalars,
    StepCost,
    StepWork,
)


@dataclass(frozen=True, eq=False)
class OperatorSeconds:
    """One operator class of many steps; arrays of shape (steps,), or scalars."""

    name: str
    resource: str
    seconds: FloatArray
    flops: FloatArray
    bytes: FloatArray
    compute_bound: BoolArray
    """Where FLOPs, not bytes, set the time."""
    provenance: str


class RooflineCostModel:
    """Prices steps of ``llm`` on ``tp`` GPUs of ``hardware``."""

    name = "roofline"

    def __init__(
        self, llm: LLMSpec, hardware: HardwareSpec, tp: int = 1, engine: EngineCosts = NO_ENGINE
    ) -> None:
        """Raise InputError if ``tp`` GPUs cannot split the model."""
        llm.check_tp(tp)
        self.llm = llm
        self.hardware = hardware
        self.tp = tp
        self.engine = engine
        self._gemms = dense_gemms(llm, tp)
        self._lm_head = lm_head_gemm(llm, tp)
        self._gemm_shares = {
            gemm: hardware.gemm.slice(n=gemm.n, k=gemm.k) for gemm in (*self._gemms, self._lm_head)
        }
        self._experts = ExpertMlp(llm, tp) if llm.is_moe else None
        # a grouped GEMM fills the GPU with all experts at once, each with its own rows
        grouped = max(llm.num_experts * llm.moe_intermediate_size // tp, 1)
        self._expert_share = hardware.gemm.slice(n=grouped, k=llm.hidden_size)
        self._link_share = hardware.all_reduce.slice(gpus=tp)
        self._kv_bytes = llm.kv_bytes_per_token / llm.kv_shards(tp)
        """KV bytes of a token on one GPU."""

    # -- operators ---------------------------------------------------------------------------

    def _gemm_seconds(self, gemm: Gemm, rows: Scalars) -> OperatorSeconds:
        hw = self.hardware
        flops, moved = gemm.flops(rows), gemm.bytes(rows)
        share = self._gemm_shares[gemm].at(rows=rows)
        compute, memory = flops / hw.flops, moved / hw.bandwidth
        seconds = np.where(
            np.asarray(rows) > 0, hw.fixed_s["gemm"] + np.maximum(compute, memory) / share, 0.0
        )
        return OperatorSeconds(
            gemm.name,
            "compute",
            gemm.launches * seconds,
            gemm.launches * flops,
            gemm.launches * np.where(np.asarray(rows) > 0, moved, 0.0),
            compute >= memory,
            hw.sources["gemm"],
        )

    def _expert_seconds(self, experts: ExpertMlp, tokens: Scalars) -> OperatorSeconds:
        hw, layers = self.hardware, self.llm.num_moe_layers
        flops, moved = experts.flops(tokens), experts.bytes(tokens)
        active = np.maximum(experts.active_experts(tokens), 1.0)
        rows = self.llm.experts_per_token * np.asarray(tokens) / active
        share = self._expert_share.at(rows=rows)
        compute, memory = flops / hw.flops, moved / hw.bandwidth
        seconds = np.where(
            np.asarray(tokens) > 0,
            2 * hw.fixed_s["gemm"] + np.maximum(compute, memory) / share,
            0.0,
        )
        return OperatorSeconds(
            "mlp",
            "compute",
            layers * seconds,
            layers * flops,
            layers * moved,
            compute >= memory,
            hw.sources["gemm"] + "; experts as GEMMs of their rows, evenly routed",
        )

    def _prefill_attention(self, work: StepWork) -> OperatorSeconds:
        hw = self.hardware
        chunks = np.asarray(work.prefill_requests, dtype=np.float64)
        pairs = np.asarray(work.prefill_attention_pairs, dtype=np.float64)
        flops = pairs * (self.llm.prefill_flops_per_pair / self.tp)
        tokens = np.asarray(work.prefill_context_tokens) + np.asarray(work.prefill_tokens)
        moved = tokens * self._kv_bytes
        chunks = np.maximum(chunks, 1.0)
        share = hw.prefill_attention.at(
            heads=chunks * (self.llm.num_attention_heads / self.tp), keys=tokens / chunks
        )
        compute = flops / (hw.flops * share)
        memory = moved / (hw.bandwidth * hw.decode_attention.best)
        launch = self.llm.num_layers * hw.fixed_s["prefill_attention"]
        return OperatorSeconds(
            "prefill_attention",
            "compute",
            np.where(pairs > 0, launch + np.maximum(compute, memory), 0.0),
            flops,
            moved,
            compute >= memory,
            hw.sources["prefill_attention"],
        )

    def _decode_attention(self, work: StepWork) -> OperatorSeconds:
        hw = self.hardware
        batch = np.asarray(work.decode_requests, dtype=np.float64)
        context = np.asarray(work.decode_context_tokens, dtype=np.float64)
        flops = context * (self.llm.decode_flops_per_context_token / self.tp)
        moved = context * self._kv_bytes
        heads = 1 if self.llm.is_mla else self.llm.num_kv_heads / self.llm.kv_shards(self.tp)
        mean = context / np.maximum(batch, 1.0)
        share = hw.decode_attention.at(kv_heads=np.maximum(batch, 1.0) * heads, context=mean)
        memory = moved / (hw.bandwidth * share)
        compute = flops / (hw.flops * hw.prefill_attention.best)
        launch = self.llm.num_layers * hw.fixed_s["decode_attention"]
        return OperatorSeconds(
            "decode_attention",
            "memory",
            np.where(batch > 0, launch + np.maximum(compute, memory), 0.0),
            flops,
            moved,
            compute >= memory,
            hw.sources["decode_attention"],
        )

    def _all_reduce(self, rows: Scalars) -> OperatorSeconds:
        """Ring all-reduce, two a layer: every GPU sends 2 (tp - 1) / tp of the message."""
        hw, tp = self.hardware, self.tp
        message = np.asarray(rows, dtype=np.float64) * self.llm.hidden_size * self.llm.dtype_bytes
        moved = 2 * (tp - 1) / tp * message
        seconds = (
            hw.fixed_s["all_reduce"]
            + 2 * (tp - 1) * hw.link_latency_s
            + moved / (hw.link_bandwidth * self._link_share.at(bytes=message))
        )
        launches = 2 * self.llm.num_layers
        return OperatorSeconds(
            "all_reduce",
            "communication",
            np.where(np.asarray(rows) > 0, launches * seconds, 0.0),
            np.zeros_like(message),
            launches * moved,
            np.zeros(message.shape, dtype=np.bool_),
            hw.sources["all_reduce"],
        )

    def operator_seconds(self, work: StepWork) -> list[OperatorSeconds]:
        """Return every operator of each step of ``work``; a name may come more than once."""
        return [
            *self._dense_operators(work.gemm_tokens),
            self._gemm_seconds(self._lm_head, work.sampled_tokens),
            self._prefill_attention(work),
            self._decode_attention(work),
        ]

    def _dense_operators(self, rows: Scalars) -> list[OperatorSeconds]:
        """Return the operators that depend on a step's row count alone."""
        found = [self._gemm_seconds(gemm, rows) for gemm in self._gemms]
        if self._experts is not None:
            found.append(self._expert_seconds(self._experts, rows))
        if self.tp > 1:
            found.append(self._all_reduce(rows))
        return found

    # -- the CostModel protocol --------------------------------------------------------------

    def _bandwidth_s(self, work: StepWork) -> FloatArray:
        """Seconds to read the step's weights and KV once, at the best share of the bandwidth."""
        rows = np.asarray(work.gemm_tokens, dtype=np.float64)
        loads = sum(
            gemm.launches * gemm.weights / self._gemm_shares[gemm].best for gemm in self._gemms
        )
        weights = np.where(rows > 0, float(loads), 0.0)
        if self._experts is not None:
            experts = self._experts.weights * self._experts.active_experts(rows)
            weights = weights + self.llm.num_moe_layers * experts / self._expert_share.best
        head = self._lm_head.weights / self._gemm_shares[self._lm_head].best
        weights = weights + np.where(np.asarray(work.sampled_tokens) > 0, head, 0.0)
        kv_tokens = np.asarray(work.decode_context_tokens) + np.asarray(work.prefill_context_tokens)
        kv_bytes = kv_tokens * self._kv_bytes / self.hardware.decode_attention.best
        return np.asarray((weights * self.llm.dtype_bytes + kv_bytes) / self.hardware.bandwidth)

    def step_cost(self, work: StepWork) -> StepCost:
        """Return the cost of each step of ``work``, in seconds."""
        rows = np.asarray(work.gemm_tokens, dtype=np.float64)
        # a run repeats its row counts many times: price each count once
        distinct, which = np.unique(rows, return_inverse=True)
        dense = {"compute": np.zeros_like(distinct), "communication": np.zeros_like(distinct)}
        for operator in self._dense_operators(distinct):
            dense[operator.resource] = dense[operator.resource] + operator.seconds
        sampled, which_sampled = np.unique(work.sampled_tokens, return_inverse=True)
        head = self._gemm_seconds(self._lm_head, sampled).seconds
        compute = dense["compute"][which.reshape(rows.shape)]
        compute = compute + head[which_sampled.reshape(rows.shape)]
        return StepCost(
            compute_s=compute + self._prefill_attention(work).seconds,
            memory_s=self._decode_attention(work).seconds,
            communication_s=dense["communication"][which.reshape(rows.shape)],
            fixed_s=self._fixed_s(work),
            bandwidth_s=self._bandwidth_s(work),
            host_s=self.engine.beside_s(work, self.llm.num_layers),
        )

    def _fixed_s(self, work: StepWork) -> FloatArray:
        """Return what no batching hides: the host time that the GPU waits for, and a calibrated
        profile's own seconds of a step."""
        rows = np.asarray(work.gemm_tokens, dtype=np.float64)
        step = np.where(rows > 0, self.hardware.fixed_s["step"], 0.0)
        return np.asarray(step + self.engine.waited_s(work))

    def ideal_cost(self, work: StepWork) -> StepCost:
        """Return the least this work could cost in any batching.

        Best point of every curve, no launches, no weight loads, no padding.
        """
        hw = self.hardware
        tokens = np.asarray(work.tokens, dtype=np.float64)
        flops = np.zeros_like(tokens)
        for gemm in self._gemms:
            flops = flops + gemm.launches * gemm.flops(tokens) / self._gemm_shares[gemm].best
        if self._experts is not None:
            experts = self._experts.flops(tokens) / self._expert_share.best
            flops = flops + self.llm.num_moe_layers * experts
        head = self._lm_head.flops(work.sampled_tokens) / self._gemm_shares[self._lm_head].best
        pairs = np.asarray(work.prefill_attention_pairs) * self.llm.prefill_flops_per_pair / self.tp
        compute = (flops + head + pairs / hw.prefill_attention.best) / hw.flops
        context = np.asarray(work.decode_context_tokens, dtype=np.float64)
        kv_s = context * self._kv_bytes / (hw.bandwidth * hw.decode_attention.best)
        flops_s = (
            context
            * (self.llm.decode_flops_per_context_token / self.tp)
            / (hw.flops * hw.prefill_attention.best)
        )
        communication = np.zeros_like(tokens)
        if self.tp > 1:
            message = tokens * self.llm.hidden_size * self.llm.dtype_bytes
            moved = 2 * self.llm.num_layers * 2 * (self.tp - 1) / self.tp * message
            communication = moved / (hw.link_bandwidth * self._link_share.best)
        return StepCost(
            compute_s=compute,
            memory_s=np.maximum(kv_s, flops_s),
            communication_s=communication,
            fixed_s=np.zeros_like(tokens),
            bandwidth_s=kv_s,
        )

    def operators(self, work: StepWork) -> list[OperatorCost]:
        """Return the breakdown of one step (scalar fields); it sums to ``step_cost``."""
        merged: dict[str, list[OperatorSeconds]] = {}
        for operator in self.operator_seconds(work):
            if float(operator.seconds) > 0:
                merged.setdefault(operator.name, []).append(operator)
        costs = [_merge(parts) for parts in merged.values()]
        overhead = {
            "step_overhead": (
                self.hardware.fixed_s["step"] if float(work.gemm_tokens) > 0 else 0.0,
                self.hardware.sources["fixed_s.step"],
            ),
            "host_time": (float(self.engine.waited_s(work)), self.engine.provenance),
        }
        costs += [
            OperatorCost(name, seconds, 0.0, 0.0, "fixed", "fixed", source)
            for name, (seconds, source) in overhead.items()
            if seconds > 0
        ]
        return costs


def _merge(parts: list[OperatorSeconds]) -> OperatorCost:
    """Return the launches of one operator class of one step as one entry.

    The bound is that of the part that takes longest.
    """
    longest = max(parts, key=lambda part: float(part.seconds))
    bound = "compute" if bool(longest.compute_bound) else "memory"
    return OperatorCost(
        name=longest.name,
        seconds=sum(float(part.seconds) for part in parts),
        flops=sum(float(part.flops) for part in parts),
        bytes=sum(float(part.bytes) for part in parts),
        bound="communication" if longest.resource == "communication" else bound,
        resource=longest.resource,
        provenance=longest.provenance,
    )
