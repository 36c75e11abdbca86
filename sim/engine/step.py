"""One step while it is scheduled."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Chunk(NamedTuple):
    """Prompt tokens of one request that one step computes."""

    request: int
    computed: int
    """Tokens of the request that are in the KV cache before the step."""
    tokens: int


@dataclass(slots=True)
class Step:
    """What is decided so far: first about running requests, then about waiting ones."""

    number: int
    decodes: int
    """Requests that compute one token after their prompt."""
    context: int
    """KV tokens that they read."""
    budget: int
    """Tokens that may still be scheduled."""
    chunk_cap: int
    """Most prompt tokens of one request."""
    chunks: list[Chunk] = field(default_factory=list)
    """Of requests that ran before."""
    admitted: list[Chunk] = field(default_factory=list)
    """First chunks of those admitted in this step; what is computed of them was a hit."""
    preempted: list[int] = field(default_factory=list)
    stalled: list[int] = field(default_factory=list)
    """Decoding requests that get no token."""
    blocked: bool = False
    """Was a waiting request refused for which only a finish can make room?"""
