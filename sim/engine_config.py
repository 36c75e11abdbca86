"""The engine's knobs, in vLLM's terms, and the presets that set them together."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How an engine schedules and caches; every field can be set by ``--set engine.FIELD=VALUE``."""

    name: str = "nanoflow"
    """The preset that the other fields started from; the ``engine`` column."""
    block_size: int = 1
    """Tokens of a KV block; 1 is a radix cache, exact to the token."""
    num_gpu_blocks: int | None = None
    """KV blocks, the null block counted; None: what memory leaves beside the weights."""
    max_num_batched_tokens: int = 2048
    """Token budget of a step."""
    max_num_seqs: int = 1024
    """Most requests running at once."""
    max_model_len: int | None = None
    """Longest prompt + output; None: no limit but the KV cache."""
    batch_multiple: int = 1
    """A step's dense batch is padded to a multiple of this (128 for nanoflow)."""
    admission: Literal["optimistic", "reserve"] = "optimistic"
    """``optimistic``: admit on the prompt, preempt and recompute later; ``reserve``: admit only
    when prompt and estimated output fit beside all reservations."""
    enable_prefix_caching: bool = True
    prefix_retention: Literal["lru", "none"] = "lru"
    """``none``: only the prefixes of running requests stay."""
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    """Most prompt tokens of one request in one step; 0: no limit."""
    policy: Literal["fcfs", "priority"] = "fcfs"
    """Order of vLLM's own waiting queue."""
    async_scheduling: bool = False
    """Step k+1 is scheduled before the output of step k is applied."""
    watermark: float = 0.0
    """Share of blocks kept free at admission."""
    overlap: str = "frontier"
    """``sequential``, ``frontier``, ``gamma:G`` or ``pnorm:P``."""
    kv_reserve: float = 0.1
    """Share of GPU memory kept for activations and runtime (1 - vLLM's gpu_memory_utilization)."""
