"""Reserve admission: KV tokens promised to running requests and not yet used."""

import heapq


class Reservations:
    """Sums over the requests that run: what was promised to each, and what is left of it.

    Promised minus used is kept as sums; requests that outgrow their promise would make it
    negative, so they are found by the step in which that happens and taken out.
    """

    def __init__(self, reserved_tokens: list[int], block_size: int) -> None:
        self._reserved = reserved_tokens
        self._block_size = block_size
        self._promised = 0
        self._overdue: list[tuple[int, int, int]] = []  # (step, request, base)
        self._base: dict[int, int] = {}
        self._over: dict[int, int] = {}  # request -> base - reserved
        self._over_sum = 0

    def add(self, r: int) -> None:
        """Promise `r` its prompt and estimated output."""
        self._promised += self._reserved[r]

    def watch(self, r: int, base: int) -> None:
        """Note that `r` decodes with ``base + step`` tokens computed at each step."""
        self._base[r] = base
        heapq.heappush(self._overdue, (self._reserved[r] - base, r, base))

    def remove(self, r: int) -> None:
        """Take back what was promised to `r`."""
        self._promised -= self._reserved[r]
        self._base.pop(r, None)
        self._over_sum -= self._over.pop(r, 0)

    def outstanding(self, step: int, context_tokens: int) -> int:
        """Return blocks promised and not yet used, given all context tokens of running requests."""
        while self._overdue and self._overdue[0][0] < step:
            _, r, base = heapq.heappop(self._overdue)
            if self._base.get(r) == base:
                self._over[r] = base - self._reserved[r]
                self._over_sum += self._over[r]
        beyond = self._over_sum + len(self._over) * step
        return max(0, -(-(self._promised + beyond - context_tokens) // self._block_size))

    def beyond(self, r: int, goal: int) -> int:
        """Return the blocks that `r` itself will need past its prompt."""
        return max(0, -(-(self._reserved[r] - goal) // self._block_size))
