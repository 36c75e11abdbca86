"""The matrix products of a transformer step as FLOPs and bytes per GPU, without prices."""

from dataclasses import dataclass

import numpy as np

from bssim.cost_models.llm import LLMSpec, Shard
from bssim.cost_models.step_cost import FloatArray, Scalars

INPUT_BYTES = {"fp8": 1.0, "int8": 1.0, "fp4": 0.5}
"""Bytes of a GEMM's input element in formats that quantise it; others read the activations."""


@dataclass(frozen=True, slots=True)
class Gemm:
    """A dense layer, run ``launches`` times per step on one GPU: rows x ``k`` by ``k`` x ``n``."""

    name: str
    n: int
    k: int
    launches: int
    gemm_format: str
    """Format in which it multiplies; see `Precision.gemm_format`."""
    weight_size: float
    """Bytes of a weight element."""
    activation_size: int
    """Bytes of an output element, and of an input element that is not quantised."""

    @property
    def weights(self) -> int:
        """Weight elements of one launch."""
        return self.n * self.k

    @property
    def weight_bytes(self) -> float:
        """Weight bytes of one launch."""
        return self.weights * self.weight_size

    @property
    def input_size(self) -> float:
        """Bytes of an input element."""
        return INPUT_BYTES.get(self.gemm_format, self.activation_size)

    def flops(self, rows: Scalars) -> FloatArray:
        """Return the FLOPs of one launch."""
        return np.asarray(2.0 * self.weights * np.asarray(rows))

    def bytes(self, rows: Scalars) -> FloatArray:
        """Return the bytes of one launch: weights, inputs and outputs."""
        row = self.n * self.activation_size + self.k * self.input_size
        return np.asarray(self.weight_bytes + np.asarray(rows) * row)


def _gemm(llm: LLMSpec, linear: str, name: str, n: int, k: int, launches: int) -> Gemm:
    """Return a GEMM of the precision that ``llm`` has for ``linear``, one of `LINEARS`."""
    precision = llm.precision
    return Gemm(
        name,
        n,
        k,
        launches,
        precision.gemm_format(linear),
        precision.weight_bytes(linear),
        precision.activation_bytes,
    )


def mlp_gemms(part: Shard, linear: str, width: int, layers: int) -> list[Gemm]:
    """Return the up (with gate) and down projections of MLPs of ``width``."""
    if not (width and layers):
        return []
    llm, shard = part.llm, part.width(width)
    up = (llm.mlp_matrices - 1) * shard
    return [
        _gemm(llm, linear, "mlp", up, llm.hidden_size, layers),
        _gemm(llm, linear, "mlp", llm.hidden_size, shard, layers),
    ]


def dense_gemms(part: Shard) -> list[Gemm]:
    """Return the GEMMs that every row of a step passes, on one GPU.

    Several may share a name (``mlp`` is up and down). MLA's latent projection is not split.
    """
    llm = part.llm
    gemms = _mla_gemms(part) if llm.is_mla else _attention_gemms(part)
    dense = llm.num_layers - llm.num_moe_layers
    gemms += mlp_gemms(part, "mlp", llm.intermediate_size, dense)
    if llm.is_moe:
        shared = llm.shared_expert_intermediate_size
        gemms += mlp_gemms(part, "shared_expert", shared, llm.num_moe_layers)
        routers = llm.num_moe_layers
        gemms.append(_gemm(llm, "router", "router", llm.num_experts, llm.hidden_size, routers))
    return gemms


def _attention_gemms(part: Shard) -> list[Gemm]:
    """Return the projections around attention, for each group of layers of one shape."""
    llm, gemms = part.llm, []
    for group in llm.attention_groups:
        query = group.num_heads // part.tp * group.head_dim
        kv = 2 * group.kv_size // part.group_kv_shards(group)
        hidden, layers = llm.hidden_size, group.layers
        gemms.append(_gemm(llm, "qkv_proj", "qkv_proj", query + kv, hidden, layers))
        gemms.append(_gemm(llm, "o_proj", "o_proj", hidden, query, layers))
    return gemms


def _mla_gemms(part: Shard) -> list[Gemm]:
    llm, heads = part.llm, part.heads
    layers = llm.num_layers
    qk_dim = llm.qk_nope_head_dim + llm.qk_rope_head_dim
    latent = llm.kv_lora_rank + llm.qk_rope_head_dim
    expand = heads * (llm.qk_nope_head_dim + llm.v_head_dim)
    shapes = [(heads * qk_dim + latent, llm.hidden_size)]
    if llm.q_lora_rank:
        shapes = [(llm.q_lora_rank + latent, llm.hidden_size), (heads * qk_dim, llm.q_lora_rank)]
    shapes.append((expand, llm.kv_lora_rank))
    gemms = [_gemm(llm, "qkv_proj", "qkv_proj", n, k, layers) for n, k in shapes]
    out = heads * llm.v_head_dim
    return [*gemms, _gemm(llm, "o_proj", "o_proj", llm.hidden_size, out, layers)]


def lm_head_gemm(part: Shard) -> Gemm:
    """Return the LM head of one GPU; its rows are the sampled tokens."""
    llm = part.llm
    return _gemm(llm, "lm_head", "lm_head", part.width(llm.vocab_size), llm.hidden_size, 1)
