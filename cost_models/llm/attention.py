"""Groups of layers with the same attention: its window, its heads, and its KV cache."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bssim.errors import InputError, unknown_name

Kind = Literal["full", "sliding", "chunked"]
KINDS = ("full", "sliding", "chunked")


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Layers of one kind of attention and one shape."""

    layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    kind: Kind = "full"
    """``full``: a query sees all earlier tokens. ``sliding``: it sees the last `window` tokens,
    including itself. ``chunked``: it sees the earlier tokens of its own chunk of `window` tokens.
    """
    window: int = 0
    """Tokens in the window or chunk; 0 with full attention."""
    sinks: bool = False
    """A learned logit per head joins the softmax (gpt-oss)."""
    softcap: bool = False
    """Scores pass through a scaled tanh before the softmax (Gemma 2)."""

    def __post_init__(self) -> None:
        """Refuse shapes that no layer can have."""
        if self.kind not in KINDS:
            raise unknown_name("attention kind", self.kind, KINDS)
        if min(self.layers, self.num_heads, self.num_kv_heads, self.head_dim) < 1:
            raise InputError("attention group", self, "sizes of at least 1")
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                "num_kv_heads",
                self.num_kv_heads,
                f"a divisor of num_attention_heads ({self.num_heads})",
            )
        if (self.window > 0) != (self.kind != "full"):
            raise InputError(
                "attention window",
                f"{self.window} with {self.kind} attention",
                "at least 1 with sliding and chunked attention, and 0 with full attention",
            )

    def visible_context(self, context: Any) -> Any:
        """Return how many of the ``context`` tokens before it a token sees; numbers or arrays."""
        if self.kind == "sliding":
            return np.minimum(context, self.window - 1)
        if self.kind == "chunked":
            return np.mod(context, self.window)
        return context

    def visible_pairs(self, tokens: Any, context: Any) -> Any:
        """Return the (query, key) pairs of ``tokens`` new tokens after ``context`` earlier ones.

        Numbers or arrays of one shape.
        """
        return self._pairs_of_first(context + tokens) - self._pairs_of_first(context)

    def _pairs_of_first(self, tokens: Any) -> Any:
        """Return the pairs of the first ``tokens`` tokens of a prompt, for any chunking."""
        if self.kind == "chunked":
            chunks, rest = np.divmod(tokens, self.window)
            return (chunks * self.window * (self.window + 1) + rest * (rest + 1)) / 2
        inside = np.minimum(tokens, self.window) if self.window else tokens
        return inside * (inside + 1) / 2 + (tokens - inside) * self.window

    @property
    def kv_size(self) -> int:
        """Elements of K (or V) per token in a layer."""
        return self.num_kv_heads * self.head_dim

    def kv_shards(self, tp: int) -> int:
        """Return over how many of ``tp`` GPUs the KV heads are split; other GPUs hold copies."""
        return min(tp, self.num_kv_heads)
