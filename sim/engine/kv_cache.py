"""The interface of a KV cache: what is held, what is kept for reuse, what is evicted next.

`RadixCache` and `BlockCache` count in *blocks* of `block_size` tokens (a radix cache: one token).
A block is held by running requests (``ref > 0``), free but cached (evictable, in LRU order), or
empty. A request's blocks beyond the shared part of its prompt are interchangeable, so they are
counts, not objects: a decode step of any number of requests is one call of `take`.
"""

from collections.abc import Collection, Sequence
from typing import Protocol


class KVCache(Protocol):
    """The cache interface. All sizes are in blocks unless named tokens."""

    block_size: int
    capacity: int
    """Usable blocks."""
    free: int
    """Blocks available for allocation: empty and evictable ones."""

    def match(self, request: int, num_tokens: int) -> tuple[int, int]:
        """Look up the longest cached prefix of the request's first ``num_tokens - 1`` tokens.

        Returns the hit in tokens and how many of its blocks are not held (they count as free now
        and will not once taken). Changes nothing.
        """

    def admit(self, request: int, hit_tokens: int, target: int) -> None:
        """Hold the blocks of a hit found by `match` in this step, and grow to ``target`` tokens."""

    def take(self, blocks: int) -> None:
        """Allocate private blocks, evicting as needed; ``blocks <= free``."""

    def grow(self, request: int, computed: int, target: int) -> None:
        """Allocate for a prefill chunk of tokens ``computed`` to ``target`` (exclusive)."""

    def release(
        self, request: int, computed: int, finished: bool, known: int | None = None
    ) -> None:
        """Release all blocks of a request with ``computed`` tokens in the cache.

        Blocks past ``known`` tokens (default: all) cannot be found again.
        """

    def release_finished(self, requests: Collection[int], computed: Sequence[int]) -> None:
        """Release all blocks of finished requests, in order; ``computed``: by request."""

    def blocks_for(self, computed: int, target: int) -> int:
        """Blocks that a request with ``computed`` tokens allocates to reach ``target``."""
