"""Who runs in a replica, and what can happen to them: grow, finish, be preempted.

The bookkeeping under `bssim.sim.engine.core`: it holds vLLM's running list with all that belongs
to it (KV blocks, the calendar of decodes, reservations) and keeps them in step.
"""

from bssim.sim.engine.config import EngineConfig
from bssim.sim.engine.decode_batch import DecodeBatch
from bssim.sim.engine.kv_cache import KVCache
from bssim.sim.engine.reservations import Reservations
from bssim.sim.schedulers.interface import UNLIMITED, AdmissionPolicy
from bssim.sim.workload.workload import Workload


class SchedulingError(RuntimeError):
    """The engine can go no further: a policy offered nothing, or a request larger than the cache.

    Requests that cannot fit are refused before a run, so this is a defect of a policy.
    """


class RunningRequests:
    """The running list of one replica; also what a policy may see of it (`EngineView`)."""

    def __init__(
        self,
        workload: Workload,
        policy: AdmissionPolicy,
        config: EngineConfig,
        cache: KVCache,
        reserved_tokens: list[int] | None,
    ) -> None:
        """``reserved_tokens``: prompt + estimated output per request, for reserve admission."""
        self.step = 0
        self.preemptions = 0
        self.recomputed_tokens = 0
        self.cached_tokens = 0
        """Prompt tokens hit at first admissions."""
        self.finished = 0
        self.order: list[int] = []
        """Requests by first admission."""
        n = len(workload)
        self.finish_step = [-1] * n
        """Step after which each request was done; -1 for requests of other replicas."""
        self._workload = workload
        self._policy = policy
        self._config = config
        self._cache = cache
        self._prompt: list[int] = workload.prompt_tokens.tolist()
        # Tokens computed when a request is done: the last one sampled is never computed.
        self._need: list[int] = (workload.prompt_tokens + workload.output_tokens - 1).tolist()
        # Tokens to compute before the next one is sampled: the prompt, and after a preemption
        # what had been generated too.
        self._goal: list[int] = list(self._prompt)
        self._sequence = [0] * n
        self._admissions = 0
        self._reached: dict[int, int] = {}
        self._running: dict[int, None] = {}
        self._async = config.async_scheduling
        # Async scheduling: done, but their last token is in flight while the next step is
        # scheduled, so they still hold slot and blocks.
        self._leaving: list[int] = []
        self._prefilling: dict[int, int] = {}
        self._decoding = DecodeBatch(self._need, cache.block_size)
        self._reservations = (
            None if reserved_tokens is None else Reservations(reserved_tokens, cache.block_size)
        )
        self._chunk_cap = UNLIMITED
        self._fed = False
        """Set where other processes feed the queue or free blocks: `advance` then ends when it can
        schedule nothing, for that may change."""
        self._priority: list[int] | None = None
        if config.policy == "priority":
            column = workload.priority
            self._priority = [0] * n if column is None else column.tolist()

    @property
    def block_size(self) -> int:
        """Tokens of a KV block."""
        return self._cache.block_size

    @property
    def decodes(self) -> int:
        """See `EngineView.decodes`."""
        return self._decoding.count

    @property
    def decode_context_tokens(self) -> int:
        """See `EngineView.decode_context_tokens`."""
        return self._decoding.context_tokens

    @property
    def unfinished(self) -> bool:
        """Is anything running or waiting?"""
        return bool(self._running) or self._policy.num_waiting > 0

    def cached_prefix_tokens(self, request: int) -> int:
        """See `EngineView.cached_prefix_tokens`."""
        return self._cache.match(request, self._prompt[request])[0]

    def generated_tokens(self, request: int) -> int:
        """See `EngineView.generated_tokens`."""
        if request in self._prefilling or request not in self._running:
            return self._goal[request] - self._prompt[request]
        return self._decoding.base[request] + self.step + 1 - self._prompt[request]

    def _grow(self, r: int, computed: int, target: int) -> None:
        self._cache.grow(r, computed, target)
        if self._reservations is not None:
            self._reservations.prefilling(r, target)

    def _finish(self, ended: list[int], step: int) -> bool:
        """Note requests whose last token is computed; return whether they are released at once."""
        if len(ended) > 1:
            ended.sort(key=self._sequence.__getitem__)
        finish_step = self.finish_step
        for r in ended:
            finish_step[r] = step
        if self._reservations is not None:
            for r in ended:
                self._reservations.remove(r)
        if self._async:
            self._leaving = ended
            return False
        self._release(ended)
        return True

    def _release_leaving(self) -> None:
        leaving, self._leaving = self._leaving, []
        self._release(leaving)

    def _release(self, done: list[int]) -> None:
        """Let go of finished requests, in running order as vLLM does."""
        running, need = self._running, self._need
        release, finished = self._cache.release, self._policy.finished
        for r in done:
            release(r, need[r], True)
            del running[r]
            finished(r)
        self.finished += len(done)

    def _preempt(self, r: int, scheduled: int) -> None:
        """Send a running request back to the waiting ones; ``scheduled``: tokens it got now."""
        self.preemptions += 1
        if r in self._leaving:  # its last token comes in before it could be resumed
            self._leaving.remove(r)
            self._cache.release(r, self._need[r], True, self._known_tokens(r, self._need[r], 0))
            del self._running[r]
            self._policy.finished(r)
            self.finished += 1
            return
        del self._running[r]
        computed = self._prefilling.pop(r, None)
        # Blocks are hashed when allocated: those of this step stay in the cache, uncomputed.
        known = None
        if computed is None:
            computed = self._decoding.drop(r, self.step)
            if self._async:
                known = self._known_tokens(r, computed, scheduled)
            self._goal[r] = computed + 1
        self._reached[r] = computed
        self._cache.release(r, computed + scheduled, False, known)
        if self._reservations is not None:
            self._reservations.remove(r)
        self._policy.preempted(r)

    def _known_tokens(self, r: int, computed: int, scheduled: int) -> int:
        """Tokens of a decoding request that async scheduling can hash now.

        The token that the last step samples is in flight: a block that it fills gets its hash
        when the next token of the request is scheduled.
        """
        return computed if scheduled or computed == self._goal[r] else computed - 1

    def _victim(self) -> int:
        """Return the running request to preempt: the last, or the worst (priority, arrival)."""
        if self._priority is None:
            return next(reversed(self._running))
        priority = self._priority
        return max(self._running, key=lambda r: (priority[r], r))

    def _walk_running(
        self,
    ) -> tuple[list[tuple[int, int, int]], list[int], list[int], int, int]:
        """Serve the running list request by request, preempting when blocks run out.

        Returns chunks, preempted requests, decodes that got no token, the budget left, and the
        context tokens of the decodes that did get one.
        """
        cache = self._cache
        budget = self._config.max_num_batched_tokens
        context = 0
        given: dict[int, tuple[int, int]] = {}  # request -> (computed, tokens)
        preempted: list[int] = []
        order = list(self._running)
        at = 0
        while at < len(order) and budget > 0:
            r = order[at]
            at += 1
            if r not in self._running or r in self._leaving:  # preempted further up, or done
                continue
            computed = self._prefilling.get(r, -1)
            if computed >= 0:
                tokens = min(
                    self._goal[r] - computed, self._chunk_cap, self._policy.token_limit(r), budget
                )
                if tokens <= 0:
                    continue
            else:
                computed, tokens = self._decoding.base[r] + self.step, 1
            blocks = cache.blocks_for(computed, computed + tokens)
            while blocks > cache.free:
                victim = self._victim()
                taken = given.pop(victim, (0, 0))[1]
                budget += taken
                self._preempt(victim, taken)
                preempted.append(victim)
                if victim == r:
                    if not self._running and len(preempted) == 1 and not self._fed:
                        raise SchedulingError(  # it would be tried again for ever
                            f"step {self.step}: request {self._workload.request_id(r)!r} alone "
                            f"needs more than the {cache.capacity} KV blocks"
                        )
                    break
            if r not in self._running:
                break
            if r in self._prefilling:
                self._grow(r, computed, computed + tokens)
                self._policy.prefilled(r, tokens)
            else:
                cache.take(blocks)
            given[r] = (computed, tokens)
            budget -= tokens
        chunks = []
        stalled = []
        for r in self._running:
            if r in self._prefilling:
                if r in given:
                    chunks.append((r, *given[r]))
            elif r in given:
                context += given[r][0]
            elif r not in self._leaving:
                stalled.append(r)
        for r in stalled:
            self._decoding.stall(r)
            if self._reservations is not None:
                self._reservations.decoding(r, self._decoding.base[r])
        return chunks, preempted, stalled, budget, context
