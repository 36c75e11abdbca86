"""The operators of a transformer step as FLOPs and bytes per GPU, before anyone prices them."""

from dataclasses import dataclass

import numpy as np

from bssim.cost_models.llm.spec import LLMSpec
from bssim.cost_models.step_cost import FloatArray, Scalars


@dataclass(frozen=True, slots=True)
class Gemm:
    """A dense layer run ``launches`` times a step on one GPU: rows x ``k`` times ``k`` x ``n``."""

    name: str
    n: int
    k: int
    launches: int
    dtype_bytes: int

    @property
    def weights(self) -> int:
        """Weight elements of one launch."""
        return self.n * self.k

    def flops(self, rows: Scalars) -> FloatArray:
        """Return the FLOPs of one launch."""
        return np.asarray(2.0 * self.weights * np.asarray(rows))

    def bytes(self, rows: Scalars) -> FloatArray:
        """Return the bytes of one launch: weights, inputs and outputs."""
        return np.asarray((self.weights + np.asarray(rows) * (self.n + self.k)) * self.dtype_bytes)


@dataclass(frozen=True, slots=True)
class ExpertMlp:
    """The routed experts of an MoE layer on one GPU, as one grouped GEMM per matrix stage.

    Tokens are routed uniformly: ``m`` tokens are expected to touch
    ``E (1 - (1 - k/E)^m)`` of ``E`` experts. Skewed routing touches fewer and loads some more;
    that is not modelled.
    """

    llm: LLMSpec
    tp: int

    @property
    def weights(self) -> float:
        """Weight elements of one expert, all its matrices."""
        return self.llm.expert_params / self.tp

    def active_experts(self, tokens: Scalars) -> FloatArray:
        """Return the expected number of experts that ``tokens`` tokens touch in a layer."""
        share = self.llm.experts_per_token / self.llm.num_experts
        return np.asarray(self.llm.num_experts * (1 - (1 - share) ** np.asarray(tokens)))

    def flops(self, tokens: Scalars) -> FloatArray:
        """Return the FLOPs of one layer's experts."""
        return np.asarray(
            2.0 * self.weights * self.llm.experts_per_token * np.asarray(tokens, dtype=np.float64)
        )

    def bytes(self, tokens: Scalars) -> FloatArray:
        """Return the bytes of one layer's experts: touched weights, inputs and outputs."""
        llm = self.llm
        width = 2 * llm.hidden_size + llm.mlp_matrices * llm.moe_intermediate_size / self.tp
        rows = llm.experts_per_token * np.asarray(tokens, dtype=np.float64)
        return np.asarray(
            (self.weights * self.active_experts(tokens) + rows * width) * llm.dtype_bytes
        )


def _mlp_gemms(llm: LLMSpec, tp: int, width: int, layers: int, suffix: str = "") -> list[Gemm]:
    """Return the up (with gate) and down projections of MLPs of ``width``."""
    if not (width and layers):
        return []
    shard = -(-width // tp)
    up = (llm.mlp_matrices - 1) * shard
    return [
        Gemm(f"mlp{suffix}", up, llm.hidden_size, layers, llm.dtype_bytes),
        Gemm(f"mlp{suffix}", llm.hidden_size, shard, layers, llm.dtype_bytes),
    ]


def dense_gemms(llm: LLMSpec, tp: int) -> list[Gemm]:
    """Return the GEMMs that every row of a step passes, on one of ``tp`` GPUs.

    Several may share a name (``mlp`` is up and down). MLA's latent projection is not split.
    """
    size, layers = llm.dtype_bytes, llm.num_layers
    heads = llm.num_attention_heads // tp
    gemms = []
    if llm.is_mla:
        qk_dim = llm.qk_nope_head_dim + llm.qk_rope_head_dim
        latent = llm.kv_lora_rank + llm.qk_rope_head_dim
        if llm.q_lora_rank:
            gemms.append(Gemm("qkv_proj", llm.q_lora_rank + latent, llm.hidden_size, layers, size))
            gemms.append(Gemm("qkv_proj", heads * qk_dim, llm.q_lora_rank, layers, size))
        else:
            gemms.append(Gemm("qkv_proj", heads * qk_dim + latent, llm.hidden_size, layers, size))
        expand = heads * (llm.qk_nope_head_dim + llm.v_head_dim)
        gemms.append(Gemm("qkv_proj", expand, llm.kv_lora_rank, layers, size))
        out = heads * llm.v_head_dim
    else:
        kv = 2 * llm.kv_size // llm.kv_shards(tp)
        gemms.append(Gemm("qkv_proj", heads * llm.head_dim + kv, llm.hidden_size, layers, size))
        out = heads * llm.head_dim
    gemms.append(Gemm("o_proj", llm.hidden_size, out, layers, size))
    gemms += _mlp_gemms(llm, tp, llm.intermediate_size, layers - llm.num_moe_layers)
    if llm.is_moe:
        gemms += _mlp_gemms(llm, tp, llm.shared_expert_intermediate_size, llm.num_moe_layers)
        gemms.append(Gemm("mlp", llm.num_experts, llm.hidden_size, llm.num_moe_layers, size))
    return gemms


def lm_head_gemm(llm: LLMSpec, tp: int) -> Gemm:
    """Return the LM head of one GPU; its rows are the sampled tokens."""
    return Gemm("lm_head", -(-llm.vocab_size // tp), llm.hidden_size, 1, llm.dtype_bytes)
