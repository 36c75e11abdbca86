"""How many KV tokens fit beside the weights, for layers with full attention and with windows.

The simulated KV cache counts tokens as if every layer held them. Layers with a window hold fewer,
and vLLM gives them separate block tables. So a token here takes the mean bytes over a pool: the
bytes that vLLM would hold over all decode steps of all requests, divided by the tokens of context.
This is right for the total memory over time, but not for each request.
"""

import math

import numpy as np
import numpy.typing as npt

from bssim.cost_models.hardware.spec import HardwareSpec
from bssim.cost_models.llm import LLMSpec, Shard
from bssim.errors import InputError

Lengths = npt.NDArray[np.int64]
ALIKE = 1.5
"""Below this ratio of layers, vLLM makes one group of blocks per kind of attention."""


def padded_layers(llm: LLMSpec) -> list[int]:
    """Return for how many layers vLLM allocates blocks, per group of `attention_groups`.

    All groups of blocks have the same number of layers: that of the rarer kind of attention, or
    that of the more common kind if the two numbers are close. vLLM pads the last group of a kind.
    """
    counts = [group.layers for group in llm.attention_groups]
    size = max(counts) if max(counts) < ALIKE * min(counts) else min(counts)
    return [-(-count // size) * size for count in counts]


def held_shares(llm: LLMSpec, prompt_tokens: Lengths, output_tokens: Lengths) -> list[float]:
    """Return the share of a pool's context that each group's layers hold, over all decode steps.

    1 for full attention; one number per group of `attention_groups`.
    """
    # the sums of a pool are large: float64 keeps a relative error of 1e-16
    p, d = prompt_tokens.astype(np.float64), output_tokens.astype(np.float64)
    everything = float((d * p + d * (d + 1) / 2).sum())
    return [
        float(np.sum(group.visible_pairs(d, p))) / everything if group.window else 1.0
        for group in llm.attention_groups
    ]


def kv_bytes_per_held_token(
    llm: LLMSpec,
    tp: int = 1,
    lengths: tuple[Lengths, Lengths] | None = None,
) -> float:
    """Return the mean bytes that a token of context takes on one of ``tp`` GPUs.

    ``lengths`` are the prompt and output tokens of a pool, each of shape (requests,). Without them,
    every layer counts as holding all tokens.
    """
    groups, part = llm.attention_groups, Shard(llm, tp)
    shares = [1.0] * len(groups) if lengths is None else held_shares(llm, *lengths)
    return sum(
        share * llm.group_kv_bytes(group) / part.group_kv_shards(group) * (padded / group.layers)
        for group, share, padded in zip(groups, shares, padded_layers(llm), strict=True)
    )


def kv_capacity_tokens(
    llm: LLMSpec,
    hardware: HardwareSpec,
    tp: int = 1,
    kv_reserve: float = 0.1,
    lengths: tuple[Lengths, Lengths] | None = None,
    pp: int = 1,
) -> int:
    """Return how many KV tokens fit beside the weights on ``tp`` x ``pp`` GPUs.

    Each of ``pp`` stages holds the weights and KV of its layers. The largest stage decides: it has
    the most layers, and the embedding or the LM head.

    ``kv_reserve`` is the share of memory kept for activations and the runtime. KV heads are split
    over the GPUs, and copied if there are more GPUs than heads. ``lengths`` matters only for models
    with windows; see `kv_bytes_per_held_token`. Raises InputError with the numbers if the model
    does not fit.
    """
    Shard(llm, tp)  # refuses a tp that cannot split the model
    if not 0 <= kv_reserve < 1:
        raise InputError("kv_reserve", repr(kv_reserve), "a share in [0, 1)")
    usable = hardware.memory_bytes * (1 - kv_reserve)
    layers = -(-llm.num_layers // pp) / llm.num_layers
    ends = llm.lm_head_params * llm.dtype_bytes if pp > 1 else 0
    if llm.tie_word_embeddings or pp == 1:
        stage = (llm.weight_bytes - ends) * layers + ends
    else:
        stage = (llm.weight_bytes - 2 * ends) * layers + ends
    weights = stage / tp
    tokens = math.floor((usable - weights) / (layers * kv_bytes_per_held_token(llm, tp, lengths)))
    if tokens < 1:
        raise InputError.saying(
            f"{llm.name} does not fit {tp * pp} x {hardware.name}",
            (
                f"weights take {weights / 1e9:.1f} GB per GPU, and {usable / 1e9:.1f} "
                f"GB of {hardware.memory_bytes / 1e9:.1f} GB are usable with kv_reserve "
                f"{kv_reserve:g}"
            ),
            "more GPUs (tp, pp), a larger GPU or a smaller model",
        )
    return tokens


def window_note(llm: LLMSpec, lengths: tuple[Lengths, Lengths]) -> str | None:
    """Return a run's note on the KV cache of a model with windows; None without windows."""
    group = llm.windowed
    if group is None:
        return None
    share = min(held_shares(llm, *lengths))
    return (
        f"{llm.name}: {group.kind} attention over {group.window:,} tokens: in this pool those "
        f"layers hold {share:.0%} of the context. The KV capacity counts tokens of that mean size; "
        "vLLM frees the blocks of each request as its window moves on"
    )
