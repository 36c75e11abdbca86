"""The work of an engine step (StepWork), its cost (StepCost), and the protocols that price it.

Every field is a float, or a float array with one value per step. A cost model prices all steps of
a run in a few numpy operations, outside the simulator's inner loop.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from bssim.cost_models.llm import AttentionGroup

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Scalars: TypeAlias = float | FloatArray
"""One value, or one value per step."""


def attention_pairs(tokens: Any, context: Any = 0) -> Any:
    """Return the (query, key) pairs of ``tokens`` new tokens after ``context`` earlier ones.

    Each new token attends to all earlier tokens and to itself: ``c*x + c*(c+1)/2``. Takes numbers
    or arrays of one shape.
    """
    return tokens * context + tokens * (tokens + 1) / 2


@dataclass(frozen=True, slots=True, eq=False)
class StepWork:
    """The work of a step as sums over its requests; units are requests, tokens or token pairs.

    A *decode* request computes one token and reads its whole context; a *prefill chunk* is
    ``c`` prompt tokens after ``x`` tokens that are already in the KV cache. Fields default to zero.
    If some fields are arrays, a number in another field applies to every step.
    """

    decode_requests: Scalars = 0.0
    decode_context_tokens: Scalars = 0.0
    """KV tokens that decode attention reads: sum over decode requests of the KV before the step."""
    prefill_requests: Scalars = 0.0
    """Number of prefill chunks."""
    prefill_tokens: Scalars = 0.0
    """Sum of ``c`` over chunks."""
    prefill_context_tokens: Scalars = 0.0
    """Sum of ``x`` over chunks: KV tokens from before the step that prefill attention reads."""
    prefill_attention_pairs: Scalars = 0.0
    """(query, key) pairs under the causal mask: sum of `attention_pairs`."""
    sampled_tokens: Scalars = 0.0
    """Rows of the LM head: decode requests plus chunks that complete a prefill."""
    padding_tokens: Scalars = 0.0
    """Rows added to reach ``batch_multiple``; only GEMMs compute them."""
    window_decode_tokens: Scalars = -1.0
    """`decode_context_tokens` in layers with a window; a negative value, here and below, means that
    it was not summed."""
    window_prefill_context_tokens: Scalars = -1.0
    """`prefill_context_tokens` in layers with a window."""
    window_attention_pairs: Scalars = -1.0
    """`prefill_attention_pairs` in layers with a window."""

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        shape = np.broadcast_shapes(*{np.shape(value) for value in values.values()})
        for name, value in values.items():
            if np.shape(value) != shape:
                object.__setattr__(self, name, np.broadcast_to(np.float64(value), shape))

    @property
    def tokens(self) -> Scalars:
        """Scheduled tokens, without padding."""
        return self.decode_requests + self.prefill_tokens

    @property
    def gemm_tokens(self) -> Scalars:
        """Rows of the dense GEMMs: scheduled tokens plus padding."""
        return self.decode_requests + self.prefill_tokens + self.padding_tokens

    def seen_by(self, group: AttentionGroup) -> Self:
        """Return the work with the attention sums of the layers of ``group``.

        Window sums that are missing are estimated with requests of mean length. For a sliding
        window this is at least the true sum.
        """
        if not group.window:
            return self
        requests = np.maximum(self.decode_requests, 1.0)
        chunks = np.maximum(self.prefill_requests, 1.0)
        tokens, context = self.prefill_tokens / chunks, self.prefill_context_tokens / chunks
        estimates = {
            "decode_context_tokens": requests
            * group.visible_context(self.decode_context_tokens / requests),
            "prefill_context_tokens": chunks * group.visible_context(context),
            "prefill_attention_pairs": chunks * group.visible_pairs(tokens, context),
        }
        summed = {
            "decode_context_tokens": self.window_decode_tokens,
            "prefill_context_tokens": self.window_prefill_context_tokens,
            "prefill_attention_pairs": self.window_attention_pairs,
        }
        seen = {
            key: np.where(np.asarray(summed[key]) < 0, estimates[key], summed[key])
            for key in summed
        }
        return replace(self, **seen)

    def __getitem__(self, index: slice) -> Self:
        """Return the steps of ``index``; fields must be arrays."""
        return type(self)(
            **{f.name: np.asarray(getattr(self, f.name))[index] for f in fields(self)}
        )

    def total(self) -> Self:
        """Return the sum over steps, as scalars."""
        return type(self)(**{f.name: float(np.sum(getattr(self, f.name))) for f in fields(self)})


@dataclass(frozen=True, slots=True, eq=False)
class StepCost:
    """Seconds of a step by the resource that bounds them; an OverlapModel turns them into time."""

    compute_s: Scalars
    """Dense operators (QKV/O, MLP, LM head) and prefill attention, run alone and in sequence."""
    memory_s: Scalars
    """Decode attention, run alone."""
    communication_s: Scalars
    """All-reduces of tensor parallelism."""
    fixed_s: Scalars
    """Per-step and per-launch costs that no batching hides."""
    bandwidth_s: Scalars
    """Floor: all HBM bytes of the step (weights and KV) at the best attainable bandwidth."""
    host_s: Scalars = 0.0
    """Floor: CPU seconds of the engine that overlap with the GPU; ``fixed_s`` follows both."""

    @property
    def sequential_s(self) -> Scalars:
        """Seconds when operators run one after another."""
        alone = self.compute_s + self.memory_s + self.communication_s
        return np.maximum(alone, self.host_s) + self.fixed_s

    def total(self) -> Self:
        """Return the sum over steps, as scalars."""
        return type(self)(**{f.name: float(np.sum(getattr(self, f.name))) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """One operator class of one step, for `bssim costs`."""

    name: str
    """``qkv_proj``, ``o_proj``, ``mlp``, ``lm_head``, ``prefill_attention``, ..."""
    seconds: float
    flops: float
    bytes: float
    bound: str
    """``compute``, ``memory``, ``communication`` or ``fixed``."""
    resource: str
    """The StepCost field it is added to, without ``_s``."""
    provenance: str
    """``spec sheet``, ``fitted``, ``measured`` or ``paper``, with the source."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What the decode requests of one step of a replica can be."""

    max_requests: int
    kv_capacity_tokens: float
    shared_tokens: float
    """The most tokens of a request that other requests may share: the cache holds them once."""
    longest_context_tokens: float

    def most_requests(self, context: FloatArray) -> FloatArray:
        """Return the most requests whose mean context is ``context``; at least one."""
        private = np.maximum(context - self.shared_tokens, 1e-9)
        return np.clip(self.kv_capacity_tokens / private, 1.0, self.max_requests)


class CostModel(Protocol):
    """Prices steps of one model on one GPU (or one tensor-parallel group)."""

    @property
    def name(self) -> str:
        """``roofline``, ``silicon``, ``fitted`` or ``paper``; the ``cost_model`` column."""

    def step_cost(self, work: StepWork) -> StepCost:
        """Return the cost of each step of ``work``, in seconds."""

    def ideal_cost(self, work: StepWork) -> StepCost:
        """Return the least cost of this work in any batching.

        It assumes the best attainable efficiency, no fixed costs and no weight loads. Bounds use
        it; steps do not.
        """

    def operators(self, work: StepWork) -> list[OperatorCost]:
        """Return the breakdown of one step (scalar fields); it sums to ``step_cost``."""


@runtime_checkable
class PricesDecodeBatches(Protocol):
    """A cost model whose decode attention depends on how many requests a step decodes."""

    def least_decode_s(self, work: StepWork, limits: DecodeLimits) -> float:
        """Return the least memory seconds of all decodes of ``work`` (scalars)."""


class OverlapModel(Protocol):
    """How an engine overlaps compute, memory and communication within a step."""

    @property
    def name(self) -> str:
        """As on the command line: ``sequential``, ``frontier``, ``gamma:0.2``, ``pnorm:4``."""

    def step_seconds(self, cost: StepCost) -> Scalars:
        """Return the wall seconds of each step; convex, homogeneous of degree one in ``cost``."""
