"""The roofline cost model: FLOPs or bytes bound every operator, at a measured efficiency.

An operator takes ``fixed + max(flops / (C e_c), bytes / (BW e_m))`` seconds, with ``e_c`` and
``e_m`` from the hardware's curves at the operator's size. A GEMM has one curve for both, because
tiles, waves and launches cost it the same share on either side of the ridge.
"""

from dataclasses import fields, replace
from typing import Literal

import numpy as np

from bssim.cost_models.engine_costs import NO_ENGINE, EngineCosts
from bssim.cost_models.hardware import HardwareSpec, with_kernels
from bssim.cost_models.llm import LLMSpec, Shard
from bssim.cost_models.operators import (
    SKEW_SOURCE,
    AttentionCost,
    Collectives,
    Elementwise,
    ExpertMlp,
    Gemm,
    OperatorSeconds,
    dense_gemms,
    lm_head_gemm,
    merged,
    sampling_kernels,
    scaled,
    token_kernels,
)
from bssim.cost_models.step_cost import (
    DecodeLimits,
    FloatArray,
    OperatorCost,
    Scalars,
    StepCost,
    StepWork,
)
from bssim.errors import InputError

GEMM_CURVES = {
    "fp8": "gemm_fp8",
    "int8": "gemm_int8",
    "fp4": "gemm_fp4",
    "w4a16": "gemm_w4a16",
    "w8a16": "gemm_w8a16",
}
"""Format of a GEMM -> its curve; 16- and 32-bit formats share ``gemm``."""
ElementwiseResource = Literal["compute", "memory"]


class RooflineCostModel:
    """Prices steps of ``llm`` on a replica of ``tp`` x ``engine.pp`` GPUs of ``hardware``.

    Elementwise kernels count as ``compute``: they run between the GEMMs of a layer, so an engine
    overlaps the whole dense stream with the attention of another batch. Their bytes also count
    towards the bandwidth floor. ``elementwise`` can assign them to attention's resource instead.
    """

    name = "roofline"

    def __init__(
        self,
        llm: LLMSpec,
        hardware: HardwareSpec,
        tp: int = 1,
        engine: EngineCosts = NO_ENGINE,
        *,
        elementwise: ElementwiseResource = "compute",
    ) -> None:
        """Raise InputError if the GPUs cannot split the model."""
        part = Shard(llm, tp)
        pp = engine.pp
        if not 1 <= pp <= llm.num_layers:
            raise InputError("pp", pp, f"1 to the {llm.num_layers} layers of {llm.name}")
        if engine.expert_parallel and llm.is_moe and llm.num_experts % tp:
            raise InputError(
                "engine.enable_expert_parallel",
                f"tp {tp}",
                f"a divisor of the {llm.num_experts} experts of {llm.name}",
            )
        hardware = with_kernels(hardware, engine.kernels)
        self.llm = llm
        self.hardware = hardware
        self.tp = tp
        self.pp = pp
        # a pipeline schedules other micro-batches while a GPU computes one
        self.engine = engine if pp == 1 else replace(engine, async_scheduling=True)
        self._elementwise_resource = elementwise
        self._stage_factor = -(-llm.num_layers // pp) * pp / llm.num_layers
        """Layers of the largest stage divided by the mean."""
        # what a GPU runs in a step, then what the hardware says of it
        self._gemms = dense_gemms(part)
        self._lm_head = lm_head_gemm(part)
        self._token_kernels = token_kernels(part)
        self._sampling_kernels = sampling_kernels(llm)
        self._experts = ExpertMlp(part, engine.expert_parallel) if llm.is_moe else None
        all_gemms = (*self._gemms, self._lm_head)
        formats = {gemm.gemm_format for gemm in all_gemms}
        names = {GEMM_CURVES.get(name, "gemm") for name in formats} | {"elementwise"}
        if self._experts is not None:
            formats.add(self._experts.gemm_format)
            eight = self._experts.gemm_format in ("fp8", "int8", "fp4")
            expert_curve = "experts_fp8" if eight else "experts"
            names.add(expert_curve)
        self._peaks = {name: hardware.peak(name) for name in formats}
        curves = {name: hardware.curve(name) for name in names}
        self._elementwise_share = curves["elementwise"]
        self._gemm_shares = {
            gemm: curves[GEMM_CURVES.get(gemm.gemm_format, "gemm")].slice(n=gemm.n, k=gemm.k)
            for gemm in all_gemms
        }
        if self._experts is not None:
            self._expert_share = curves[expert_curve].slice(elements=self._experts.weights)
        self._attention = AttentionCost.of(part, hardware)
        self._collectives = Collectives.of(part, hardware, engine.all_reduce)

    # -- operators ---------------------------------------------------------------------------

    def _gemm_seconds(self, gemm: Gemm, rows: Scalars) -> OperatorSeconds:
        hw = self.hardware
        flops, moved = gemm.flops(rows), gemm.bytes(rows)
        curve = self._gemm_shares[gemm]
        share = curve.at(rows=rows)
        compute, memory = flops / self._peaks[gemm.gemm_format], moved / hw.bandwidth
        some = np.asarray(rows) > 0
        seconds = np.where(some, hw.fixed_s["gemm"] + np.maximum(compute, memory) / share, 0.0)
        return OperatorSeconds(
            gemm.name,
            "compute",
            gemm.launches * seconds,
            gemm.launches * flops,
            gemm.launches * np.where(some, moved, 0.0),
            compute >= memory,
            curve.source,
        )

    def _kernel_seconds(self, kernel: Elementwise, rows: Scalars) -> OperatorSeconds:
        moved = kernel.bytes(rows)
        rate = self.hardware.bandwidth * self._elementwise_share.at(bytes=np.maximum(moved, 1.0))
        return OperatorSeconds(
            kernel.name,
            self._elementwise_resource,
            kernel.launches * np.where(moved > 0, moved / rate, 0.0),
            np.zeros_like(moved),
            kernel.launches * moved,
            np.zeros(moved.shape, dtype=np.bool_),
            self._elementwise_share.source,
        )

    def _expert_seconds(self, experts: ExpertMlp, tokens: Scalars) -> OperatorSeconds:
        hw, layers = self.hardware, self.llm.num_moe_layers
        flops, moved = experts.flops(tokens), experts.bytes(tokens)
        active = np.maximum(experts.active_experts(tokens), 1e-9)
        rows = np.maximum(experts.rows(tokens) / active, 1.0)
        sizes = {"active": active, "rows": rows}
        share = self._expert_share.at(**{axis: sizes[axis] for axis in self._expert_share.axes})
        compute, memory = flops / self._peaks[experts.gemm_format], moved / hw.bandwidth
        some = np.asarray(tokens) > 0
        seconds = 2 * hw.fixed_s["gemm"] + np.maximum(compute, memory) / share
        return OperatorSeconds(
            "experts",
            "compute",
            layers * np.where(some, seconds, 0.0),
            layers * flops,
            layers * np.where(some, moved, 0.0),
            compute >= memory,
            f"{self._expert_share.source}; {SKEW_SOURCE}",
        )

    def _network(self, name: str, seconds: FloatArray, moved: FloatArray) -> OperatorSeconds:
        return OperatorSeconds(
            name,
            "communication",
            np.where(moved > 0, seconds, 0.0),
            np.zeros_like(moved),
            moved,
            np.zeros(moved.shape, dtype=np.bool_),
            self._collectives.source,
        )

    def _row_operators(self, rows: Scalars) -> list[OperatorSeconds]:
        """Return the operators that depend only on the row count of a step."""
        found = [self._gemm_seconds(gemm, rows) for gemm in self._gemms]
        found += [self._kernel_seconds(kernel, rows) for kernel in self._token_kernels]
        if self._experts is not None:
            found.append(self._expert_seconds(self._experts, rows))
        if self.tp > 1:
            count, ring = self._collectives.all_reduces, 2 * (self.tp - 1) / self.tp
            moved = count * ring * self._collectives.message_bytes(rows)
            seconds = count * self._collectives.all_reduce_s(rows)
            found.append(self._network("all_reduce", seconds, moved))
        if self.pp > 1:
            sends = self.pp - 1
            moved = sends * 2 * self._collectives.message_bytes(rows) / self.tp
            found.append(self._network("send", sends * self._collectives.send_s(rows), moved))
        return found

    def _sampled_operators(self, sampled: Scalars) -> list[OperatorSeconds]:
        """Return the operators that depend only on the number of sampled tokens."""
        found = [self._gemm_seconds(self._lm_head, sampled)]
        found += [self._kernel_seconds(kernel, sampled) for kernel in self._sampling_kernels]
        if self.tp > 1:
            moved = self._collectives.gathered_bytes(sampled)
            found.append(self._network("logits_gather", self._collectives.gather_s(sampled), moved))
        return found

    def operator_seconds(self, work: StepWork) -> list[OperatorSeconds]:
        """Return every operator of each step of ``work``; a name may occur more than once."""
        part = self._microbatch(work)
        found = [
            *self._row_operators(part.gemm_tokens),
            *self._sampled_operators(part.sampled_tokens),
            *self._attention.prefill(part),
            *self._attention.decode(part),
        ]
        return [scaled(operator, self._stage_factor) for operator in found]

    # -- the CostModel protocol --------------------------------------------------------------

    def step_cost(self, work: StepWork) -> StepCost:
        """Return the cost of each step of ``work``, in seconds.

        With pipeline parallelism a step is one round: each of the micro-batches passes each stage.
        """
        part = self._microbatch(work)
        shape = np.shape(part.gemm_tokens)
        total = {name: np.zeros(shape) for name in ("compute", "memory", "communication")}
        # row counts repeat many times in a run: price each once
        for counts, price in (
            (part.gemm_tokens, self._row_operators),
            (part.sampled_tokens, self._sampled_operators),
        ):
            distinct, which = np.unique(np.asarray(counts, dtype=np.float64), return_inverse=True)
            sums = {name: np.zeros_like(distinct) for name in total}
            for operator in price(distinct):
                sums[operator.resource] = sums[operator.resource] + operator.seconds
            for name, values in sums.items():
                total[name] = total[name] + values[which.reshape(shape)]
        for operator in self._attention.prefill(part):
            total["compute"] = total["compute"] + operator.seconds
        for operator in self._attention.decode(part):
            total["memory"] = total["memory"] + operator.seconds
        stage = self._stage_factor
        return StepCost(
            compute_s=total["compute"] * stage,
            memory_s=total["memory"] * stage,
            communication_s=total["communication"] * stage,
            fixed_s=self._fixed_s(work),
            bandwidth_s=self._bandwidth_s(part) * stage,
            host_s=self._host_s(work, part),
        )

    def _microbatch(self, work: StepWork) -> StepWork:
        """Return the work of one of the micro-batches that a pipeline has in flight."""
        if self.pp == 1:
            return work
        pieces = self._pieces(work)
        return StepWork(**{f.name: getattr(work, f.name) / pieces for f in fields(StepWork)})

    def _pieces(self, work: StepWork) -> FloatArray:
        """Return the number of equal micro-batches of a step, at most pp."""
        requests = np.asarray(work.decode_requests) + np.asarray(work.prefill_requests)
        return np.asarray(np.clip(requests, 1.0, self.pp))

    def _fixed_s(self, work: StepWork) -> FloatArray:
        """Return the seconds that no batching hides: host time that the GPU waits for, and the
        fixed seconds per step of a calibrated profile."""
        rows = np.asarray(work.gemm_tokens, dtype=np.float64)
        step = np.where(rows > 0, self.hardware.fixed_s["step"], 0.0)
        return np.asarray(step + self.engine.waited_s(work))

    def _host_s(self, work: StepWork, part: StepWork) -> FloatArray:
        """Return the CPU seconds that overlap with the GPUs, summed over the micro-batches."""
        layers = -(-self.llm.num_layers // self.pp)
        seconds = self.engine.beside_s(part, layers)
        return seconds if self.pp == 1 else seconds * self._pieces(work)

    def _bandwidth_s(self, work: StepWork) -> FloatArray:
        """Return the seconds to read the weights and KV once and to move the bytes of elementwise
        kernels, at the best share of the bandwidth."""
        rows = np.asarray(work.gemm_tokens, dtype=np.float64)
        sampled = np.asarray(work.sampled_tokens, dtype=np.float64)
        loads = sum(
            gemm.launches * gemm.weight_bytes / self._gemm_shares[gemm].best for gemm in self._gemms
        )
        moved = np.where(rows > 0, float(loads), 0.0)
        if self._experts is not None:
            experts = self._experts.weight_bytes * self._experts.active_experts(rows)
            moved = moved + self.llm.num_moe_layers * experts / self._expert_share.best
        head = self._lm_head.weight_bytes / self._gemm_shares[self._lm_head].best
        moved = moved + np.where(sampled > 0, head, 0.0)
        moved = moved + self._elementwise_bytes(rows, sampled) / self._elementwise_share.best
        return np.asarray(moved / self.hardware.bandwidth + self._attention.kv_read_s(work))

    def _elementwise_bytes(self, rows: FloatArray, sampled: FloatArray) -> FloatArray:
        """Return the bytes that the elementwise kernels of a step move."""
        per_row = sum(kernel.launches * kernel.row_bytes for kernel in self._token_kernels)
        per_sample = sum(kernel.launches * kernel.row_bytes for kernel in self._sampling_kernels)
        return np.asarray(rows * per_row + sampled * per_sample)

    def ideal_cost(self, work: StepWork) -> StepCost:
        """Return the least cost of this work in any batching.

        It assumes the best point of every curve, no launches, no weight loads, no padding, and all
        GPUs busy.
        """
        hw = self.hardware
        tokens = np.asarray(work.tokens, dtype=np.float64)
        sampled = np.asarray(work.sampled_tokens, dtype=np.float64)
        dense = np.zeros_like(tokens)
        for gemm, rows in [*((gemm, tokens) for gemm in self._gemms), (self._lm_head, sampled)]:
            rate = self._peaks[gemm.gemm_format] * self._gemm_shares[gemm].best
            dense = dense + gemm.launches * gemm.flops(rows) / rate
        if self._experts is not None:
            least = self._experts.least_flops(tokens)
            rate = self._peaks[self._experts.gemm_format] * self._expert_share.best
            dense = dense + self.llm.num_moe_layers * least / rate
        kernels = self._elementwise_bytes(tokens, sampled)
        kernels = kernels / (hw.bandwidth * self._elementwise_share.best)
        prefill, decode, read = self._attention.least(work)
        communication = np.zeros_like(tokens)
        if self.tp > 1:
            ring = 2 * (self.tp - 1) / self.tp * self._collectives.message_bytes(tokens)
            moved = self._collectives.all_reduces * ring / self._collectives.share.best
            gathered = self._collectives.gathered_bytes(sampled)
            gathered = gathered / self._collectives.gather_share.best
            communication = (moved + gathered) / hw.link_bandwidth
        in_compute = self._elementwise_resource == "compute"
        host = self.engine.per_request_s * (
            np.asarray(work.decode_requests) + np.asarray(work.prefill_requests)
        )
        waits = not self.engine.async_scheduling
        return StepCost(
            compute_s=(dense + prefill + (kernels if in_compute else 0.0)) / self.pp,
            memory_s=(decode + (0.0 if in_compute else kernels)) / self.pp,
            communication_s=communication / self.pp,
            fixed_s=host if waits else np.zeros_like(tokens),
            bandwidth_s=(read + kernels) / self.pp,
            host_s=np.zeros_like(tokens) if waits else host,
        )

    def least_decode_s(self, work: StepWork, limits: DecodeLimits) -> float:
        """See `PricesDecodeBatches`. Micro-batches may hold parts of a request: no such floor."""
        return 0.0 if self.pp > 1 else self._attention.least_decode_s(work, limits)

    def operators(self, work: StepWork) -> list[OperatorCost]:
        """Return the breakdown of one step (scalar fields); it sums to ``step_cost``."""
        costs = merged(self.operator_seconds(work))
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
