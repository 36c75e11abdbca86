"""Reserve admission: KV blocks that are promised to running requests but not yet allocated."""

import heapq


class Reservations:
    """The promised blocks that running requests have not allocated yet, as sums.

    For a request in prefill, the remainder changes only with its chunks. Decoding requests grow by
    one token per step, so their allocations follow from their number, their contexts and how many
    are at each place within a block. A request that reaches its promise (because its estimate was
    too short) is promised no more.
    """

    def __init__(self, promised_blocks: list[int], block_size: int) -> None:
        """``promised_blocks``: blocks that each request may hold at its end."""
        self._size = block_size
        self._promise = promised_blocks
        # In prefill: promised blocks not yet allocated, per request and as a sum.
        self._rest: dict[int, int] = {}
        self._rest_sum = 0
        # Decoding within the promise: base (context = base + step), and sums over all of them.
        self._base: dict[int, int] = {}
        self._base_sum = 0
        self._promise_sum = 0
        self._phase = [0] * block_size
        self._reached: list[tuple[int, int, int]] = []  # (step of the last block, request, base)

    def prefilling(self, r: int, tokens: int) -> None:
        """Note that `r`, in prefill, holds blocks for its first ``tokens`` tokens."""
        rest = max(0, self._promise[r] + -tokens // self._size)
        self._rest_sum += rest - self._rest.get(r, 0)
        self._rest[r] = rest

    def decoding(self, r: int, base: int) -> None:
        """Note that `r` decodes with ``base + step`` tokens computed when a step begins."""
        self.remove(r)
        self._base[r] = base
        self._base_sum += base
        self._promise_sum += self._promise[r]
        self._phase[-base % self._size] += 1
        heapq.heappush(self._reached, ((self._promise[r] - 1) * self._size - base, r, base))

    def remove(self, r: int) -> None:
        """Drop the promise to `r`, if there is one."""
        self._rest_sum -= self._rest.pop(r, 0)
        base = self._base.pop(r, None)
        if base is not None:
            self._base_sum -= base
            self._promise_sum -= self._promise[r]
            self._phase[-base % self._size] -= 1

    def outstanding(self, step: int) -> int:
        """Return the promised, unallocated blocks after the decodes of ``step`` got theirs."""
        while self._reached and self._reached[0][0] <= step:
            _, r, base = heapq.heappop(self._reached)
            if self._base.get(r) == base:
                self.remove(r)
        size, end = self._size, step + 1
        tokens = self._base_sum + len(self._base) * end
        # contexts rounded up to whole blocks
        tokens += sum(n * ((at - end) % size) for at, n in enumerate(self._phase) if n)
        return self._rest_sum + self._promise_sum - tokens // size

    def beyond(self, r: int, tokens: int) -> int:
        """Return the blocks promised to `r` past those of its first ``tokens`` tokens."""
        return max(0, self._promise[r] + -tokens // self._size)
