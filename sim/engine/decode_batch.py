"""The decoding requests of a replica as sums, so that a step need not visit any of them."""

import heapq

from bssim.sim.engine.requests import RequestColumns


class DecodeBatch:
    """Requests that compute one token per step until their last one.

    A request's computed tokens are ``base + step`` when a step begins, so a step changes nothing
    but `context_tokens`. When each request ends is in a calendar; schedulers never see it.
    """

    def __init__(self, columns: RequestColumns, block_size: int) -> None:
        self.count = 0
        self.context_tokens = 0
        """KV tokens of all requests before the step."""
        self.phase = [0] * block_size
        """Requests by the step, modulo block_size, in which they need a new block."""
        self._base = columns.base
        self._goal = columns.goal
        self._need = columns.need
        self._block_size = block_size
        self.calendar: dict[int, list[int]] = {}
        """Requests by the step that computes their last token."""
        self._ends: list[int] = []

    def enter(self, requests: list[int], step: int) -> list[int]:
        """Add requests that have computed all tokens they knew (`goal`) when `step` begins.

        Returns those that have nothing left to compute: they are not added.
        """
        base, goal, need, phase = self._base, self._goal, self._need, self.phase
        block_size, calendar = self._block_size, self.calendar
        context = 0
        done: list[int] = []
        for r in requests:
            computed = goal[r]
            if computed == need[r]:
                done.append(r)
                continue
            context += computed
            start = base[r] = computed - step
            if block_size > 1:
                phase[-start % block_size] += 1
            end = need[r] - 1 - start
            if end in calendar:  # `_book`, called for every request, is written out here
                calendar[end].append(r)
            else:
                calendar[end] = [r]
                heapq.heappush(self._ends, end)
        added = len(requests) - len(done)
        if block_size == 1:  # every decode needs a block in every step
            phase[0] += added
        self.count += added
        self.context_tokens += context
        return done

    def take_ended(self, step: int) -> list[int]:
        """Remove and return the requests whose last token this step computed; some must have."""
        ended = self.calendar.pop(step)
        need, base, phase, block_size = self._need, self._base, self.phase, self._block_size
        context = 0
        for r in ended:
            context += need[r]
            if block_size > 1:
                phase[-base[r] % block_size] -= 1
        if block_size == 1:
            phase[0] -= len(ended)
        self.count -= len(ended)
        self.context_tokens -= context
        return ended

    def drop(self, r: int, step: int) -> int:
        """Remove a request before `step` computes anything; return its computed tokens."""
        computed = self._base[r] + step
        self._unbook(r)
        self.count -= 1
        self.context_tokens -= computed
        self.phase[-self._base[r] % self._block_size] -= 1
        return computed

    def stall(self, r: int, step: int) -> None:
        """Give a request no token in the current `step`, which delays it by one step."""
        self._unbook(r)
        self.phase[-self._base[r] % self._block_size] -= 1
        self._base[r] -= 1
        self.phase[-self._base[r] % self._block_size] += 1
        self._book(r, self._need[r] - 1 - self._base[r])

    def next_end(self) -> int:
        """Return the first step that computes a last token. The batch must not be empty."""
        ends = self._ends
        while ends[0] not in self.calendar:
            heapq.heappop(ends)
        return ends[0]

    def blocks_needed(self, step: int, steps: int) -> int:
        """Return the blocks that the next `steps` steps allocate if no request joins or ends."""
        size = self._block_size
        edges = sum(self.phase[(step + i) % size] for i in range(steps % size))
        return steps // size * self.count + edges

    def _book(self, r: int, end: int) -> None:
        booked = self.calendar.get(end)
        if booked is not None:
            booked.append(r)
        else:
            self.calendar[end] = [r]
            heapq.heappush(self._ends, end)

    def _unbook(self, r: int) -> None:
        end = self._need[r] - 1 - self._base[r]
        booked = self.calendar[end]
        booked.remove(r)
        if not booked:
            del self.calendar[end]
