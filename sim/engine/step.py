"""One step while it is scheduled."""


class Step:
    """The decisions so far: first on running requests, then on waiting ones."""

    preempted: tuple[int, ...] = ()
    stalled: tuple[int, ...] = ()
    """Decoding requests that get no token."""
    blocked = False
    """Whether a waiting request was refused for which only a finish can make room."""
    prefill = 0
    """Tokens of all chunks."""
    prefill_context = 0
    """Tokens computed before these chunks."""
    twice_pairs = 0
    """Twice the attention pairs of these chunks."""

    def __init__(
        self, number: int, decodes: int, context: int, budget: int, chunk_cap: int
    ) -> None:
        self.number = number
        self.decodes = decodes
        """Requests that compute one token after their prompt."""
        self.context = context
        """KV tokens that they read."""
        self.budget = budget
        """Tokens that may still be scheduled."""
        self.chunk_cap = chunk_cap
        """Most prompt tokens of one request."""
        self.chunks: dict[int, int] = {}
        """Running requests that compute prompt tokens, and how many."""
        self.admitted: dict[int, int] = {}
        """Requests admitted in this step, with the tokens found in the cache."""
        self.caught_up: list[int] = []
        """Requests of which all known tokens are computed, so that they sample the next one."""
