"""The kernels between the matrix products: they move bytes and compute next to nothing.

Bytes follow vLLM's kernels after `torch.compile`: a norm and the residual before it are one kernel
(reads both, writes both), so are the two halves of a gated activation; rotary embedding works in
place on Q and K; the KV write copies K and V into the cache. Sampling is greedy: the logits become
float32, and the largest is found. Soft-capping before it is not compiled: three kernels (divide,
tanh, multiply; vLLM's `LogitsProcessor`) each read and write the logits.
"""

from dataclasses import dataclass

import numpy as np

from bssim.cost_models.llm import LLMSpec, Shard
from bssim.cost_models.step_cost import FloatArray, Scalars

FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Elementwise:
    """A memory-bound kernel, run ``launches`` times per step on one GPU."""

    name: str
    row_bytes: float
    """Bytes that one launch reads and writes for each of its rows."""
    launches: int

    def bytes(self, rows: Scalars) -> FloatArray:
        """Return the bytes of one launch."""
        return np.asarray(self.row_bytes * np.asarray(rows, dtype=np.float64))


def token_kernels(part: Shard) -> list[Elementwise]:
    """Return the kernels whose rows are the tokens of a step, on one GPU.

    Every GPU of a tensor-parallel group holds the whole hidden state, so norms are not split.
    Quantising the input of a GEMM is not among them, because the measured GEMMs include it.
    """
    llm = part.llm
    size, layers = llm.dtype_bytes, llm.num_layers
    hidden = llm.hidden_size * size
    found = [
        Elementwise("embedding", 2 * hidden, 1),
        # reads input and residual, writes both; the last norm of the model is one more
        Elementwise("norm", 4 * hidden, llm.norms_per_layer * layers + 1),
    ]
    found += _attention_kernels(part)
    found += _activations(part)
    if llm.is_moe:
        scores = llm.num_experts * (size + FLOAT32_BYTES)
        found.append(Elementwise("router", scores, llm.num_moe_layers))
    return found


def _attention_kernels(part: Shard) -> list[Elementwise]:
    """Return rotary embedding (with the norms of Q and K) and the KV write."""
    llm = part.llm
    size = llm.dtype_bytes
    found = []
    for group in llm.attention_groups:
        query = group.num_heads // part.tp * group.head_dim
        kv = group.kv_size // part.group_kv_shards(group)
        written = 2 * kv * llm.kv_dtype_bytes
        if llm.is_mla:
            query = part.heads * llm.qk_rope_head_dim
            kv = llm.kv_lora_rank + llm.qk_rope_head_dim
            written = kv * llm.kv_dtype_bytes
        turned = query + (llm.qk_rope_head_dim if llm.is_mla else kv)
        read = kv if llm.is_mla else 2 * kv
        if llm.qk_norm or llm.qk_norm_all_heads:
            found.append(Elementwise("norm", 2 * turned * size, group.layers))
        if not llm.position_embeddings:
            found.append(Elementwise("rotary_embedding", 2 * turned * size, group.layers))
        found.append(Elementwise("kv_write", read * size + written, group.layers))
    return found


def _activations(part: Shard) -> list[Elementwise]:
    """Return the activations of dense MLPs and shared experts.

    The measured routed experts already include theirs.
    """
    llm = part.llm
    widths = [(llm.intermediate_size, llm.num_layers - llm.num_moe_layers)]
    if llm.is_moe:
        widths.append((llm.shared_expert_intermediate_size, llm.num_moe_layers))
    return [
        Elementwise("activation", llm.mlp_matrices * part.width(width) * llm.dtype_bytes, layers)
        for width, layers in widths
        if width and layers
    ]


def sampling_kernels(llm: LLMSpec) -> list[Elementwise]:
    """Return the kernels whose rows are the sampled tokens: every GPU has all logits by then."""
    to_float32 = llm.vocab_size * (llm.dtype_bytes + FLOAT32_BYTES)
    largest = llm.vocab_size * FLOAT32_BYTES
    found = [Elementwise("sampling", to_float32, 1), Elementwise("sampling", largest, 1)]
    if llm.logit_softcap:
        found.append(Elementwise("logit_softcap", 2 * llm.vocab_size * llm.dtype_bytes, 3))
    return found
