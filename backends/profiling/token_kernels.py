"""The kernels between the matrix products, in torch, to check the elementwise curve against.

Each runs on rows of the model's shapes and is priced by the curve at the bytes that cost models
give it. They are torch's own kernels, one after another: an
engine fuses some (norm with residual, rotary embedding), so they move more bytes here. The router
turns the scores of the experts into weights, chooses the experts of each token, and sorts the
tokens by expert.
"""

from collections.abc import Callable
from typing import Any

from bssim.cost_models.llm import LLMSpec, Shard
from bssim.cost_models.operators import sampling_kernels, token_kernels

KERNELS = ("embedding", "norm", "rotary_embedding", "kv_write", "activation", "router", "sampling")
KERNEL_ROWS = (64, 512)
"""Tokens of a step (``sampling``: requests)."""


def kernel_bytes(name: str, rows: int, llm: LLMSpec) -> int:
    """Return the bytes that an engine's kernel moves, as cost models price it; 0: it has none."""
    if name == "sampling":
        return int(rows * sum(kernel.row_bytes for kernel in sampling_kernels(llm)))
    found = [kernel for kernel in token_kernels(Shard(llm, 1)) if kernel.name == name]
    return int(rows * found[0].row_bytes) if found else 0


def kernel(
    torch: Any, name: str, rows: int, llm: LLMSpec, device: str, data: Callable[..., Any]
) -> Callable[[], object]:
    """Return a kernel of `KERNELS`; ``data`` makes a random tensor of a shape."""
    hidden, dim = llm.hidden_size, llm.head_dim
    if name == "embedding":
        table = data(llm.vocab_size, hidden)
        ids = torch.randint(llm.vocab_size, (rows,), device=device)
        return lambda: torch.nn.functional.embedding(ids, table)
    if name == "norm":
        inputs, residual, scale = data(rows, hidden), data(rows, hidden), data(hidden)
        norm = torch.nn.functional.rms_norm
        return lambda: norm(torch.add(inputs, residual, out=inputs), (hidden,), scale)
    if name == "rotary_embedding":
        turned = data(rows, llm.num_attention_heads + llm.num_kv_heads, 2, dim // 2)
        cos, sin = data(rows, 1, dim // 2), data(rows, 1, dim // 2)

        def rotate() -> Any:
            first, second = turned[:, :, 0], turned[:, :, 1]
            return first * cos - second * sin, second * cos + first * sin

        return rotate
    if name == "kv_write":
        cache = data(2, 4 * rows, llm.num_kv_heads, dim)
        new = data(2, rows, llm.num_kv_heads, dim)
        slots = torch.randperm(4 * rows, device=device)[:rows]
        return lambda: cache.index_copy_(1, slots, new)
    if name == "activation":
        dense = llm.num_moe_layers < llm.num_layers
        width = llm.intermediate_size if dense else llm.shared_expert_intermediate_size
        gate, up = data(rows, width), data(rows, width)
        return lambda: torch.nn.functional.silu(gate) * up
    if name == "router":
        scores = data(rows, llm.num_experts)

        def route() -> Any:
            weights = torch.nn.functional.softmax(scores.float(), dim=-1)
            chosen = torch.topk(weights, llm.experts_per_token, dim=-1)
            return chosen.values, torch.argsort(chosen.indices.flatten())

        return route
    logits = data(rows, llm.vocab_size)
    return lambda: logits.float().argmax(dim=-1)
