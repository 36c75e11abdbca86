"""One replica's scheduler loop: continuous batching with chunked prefill, vLLM V1's rules.

Each step first serves RUNNING requests in admission order, then admits WAITING ones while budget,
slots and KV blocks last; a request that cannot grow preempts the last one admitted.

A step costs O(what changed). Decoding requests are sums: their number, their context tokens, and
per block phase how many cross a block edge in this step. When each of them ends is known to the
simulator (not to the policy), so it waits in a calendar. Only a step that runs out of blocks, or
whose budget does not reach the end of the running list, is walked request by request.
"""

from collections.abc import Callable

from bssim.sim.decode_batch import DecodeBatch
from bssim.sim.engine_config import EngineConfig
from bssim.sim.kv_cache import KVCache
from bssim.sim.reservations import Reservations
from bssim.sim.schedulers.interface import UNLIMITED, AdmissionPolicy
from bssim.sim.step_columns import StepColumns, StepEntry, StepRow, step_row
from bssim.sim.workload.workload import Workload


class EngineCore:
    """The state of one replica. `advance` moves it on; nothing here knows of seconds."""

    def __init__(
        self,
        workload: Workload,
        policy: AdmissionPolicy,
        config: EngineConfig,
        cache: KVCache,
        reserved_tokens: list[int] | None = None,
        on_step: Callable[[StepRow], None] | None = None,
        single_steps: bool = False,
    ) -> None:
        """``reserved_tokens``: prompt + estimated output per request, for reserve admission."""
        self.step = 0
        self.token_budget = config.max_num_batched_tokens
        self.preemptions = 0
        self.recomputed_tokens = 0
        self.cached_tokens = 0
        """Prompt tokens hit at first admissions."""
        self.peak_held = 0
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
        self._on_step = on_step
        self._single_steps = single_steps or on_step is not None
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
        self._watermark = int(config.watermark * (cache.capacity + 1))
        self._chunk_cap = UNLIMITED
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

    def context_tokens(self, request: int) -> int:
        """See `EngineView.context_tokens`."""
        partial = self._prefilling.get(request)
        return self._decoding.base[request] + self.step if partial is None else partial

    def generated_tokens(self, request: int) -> int:
        """See `EngineView.generated_tokens`."""
        if request in self._prefilling or request not in self._running:
            return self._goal[request] - self._prompt[request]
        return self._decoding.base[request] + self.step + 1 - self._prompt[request]

    def advance(self, max_steps: int) -> StepColumns:
        """Schedule and complete up to `max_steps` steps (fewer when the work is done)."""
        policy, cache, running = self._policy, self._cache, self._running
        prefilling, decoding = self._prefilling, self._decoding
        phase = decoding.phase
        goal, need, sequence = self._goal, self._need, self._sequence
        block_size = cache.block_size
        max_tokens = self._config.max_num_batched_tokens
        max_seqs = self._config.max_num_seqs
        chunked = self._config.enable_chunked_prefill
        threshold = self._config.long_prefill_token_threshold or UNLIMITED
        match, admit, enter = cache.match, cache.admit, decoding.enter
        peek, token_limit = policy.peek, policy.token_limit
        admitted, prefilled = policy.admitted, policy.prefilled
        watermark, reservations = self._watermark, self._reservations
        keeps_room = watermark > 0 or reservations is not None
        out = StepColumns()
        last_step = self.step + max_steps
        while self.step < last_step and (running or policy.num_waiting):
            t = self.step
            decodes = decoding.count
            context = decoding.context_tokens
            budget = self.token_budget = max_tokens - decodes
            # alone, a request has nobody to starve
            alone = len(running) + policy.num_waiting == 1
            chunk_cap = self._chunk_cap = UNLIMITED if alone else threshold
            policy.begin_step(self)

            # 1. RUNNING: a token for each decode, a chunk for each unfinished prefill.
            chunks: list[tuple[int, int, int]] = []
            preempted: list[int] = []
            stalled: list[int] = []
            crossing = phase[t % block_size]
            walk = crossing > cache.free
            if prefilling and not walk:
                last = next(reversed(running))
                blocks = crossing
                for r, computed in prefilling.items():
                    tokens = min(goal[r] - computed, chunk_cap, token_limit(r))
                    if tokens > budget:
                        if r != last:  # the budget would end before the running list does
                            walk = True
                            break
                        tokens = budget
                    if tokens > 0:
                        chunks.append((r, computed, tokens))
                        blocks += cache.blocks_for(computed, computed + tokens)
                        budget -= tokens
                walk = walk or blocks > cache.free
            if walk:
                chunks, preempted, stalled, budget, context = self._walk_running()
                decodes = decoding.count - len(stalled)
            else:
                if crossing:
                    cache.take(crossing)
                for r, computed, tokens in chunks:
                    self._grow(r, computed, computed + tokens)
                    prefilled(r, tokens)
            num_chunks = len(chunks)
            prefill = prefill_context = pairs = 0  # pairs: twice their number
            sampled = decodes
            ended: list[int] = []

            # 2. WAITING, unless this step had to preempt. An admitted chunk is booked as computed
            # at once: what follows from that begins with the next step.
            blocked = False
            news: list[tuple[int, int, int]] = []
            room = 0 if preempted else max_seqs - len(running)
            while budget > 0 and room > 0:
                r = peek()
                if r < 0:
                    break
                target = goal[r]
                hit, unheld = match(r, target)
                tokens = target - hit
                if tokens > chunk_cap:
                    tokens = chunk_cap
                if tokens > budget:
                    if not chunked:
                        blocked = not num_chunks  # chunks leave room in the next step
                        break
                    tokens = budget
                limit = token_limit(r)
                if tokens > limit:
                    tokens = limit
                # vLLM's scheduler_reserve_full_isl: all known tokens must fit, not just the chunk
                blocks = -(-target // block_size) - hit // block_size + unheld
                if keeps_room and running:
                    blocks += watermark
                    if reservations is not None:
                        blocks += reservations.outstanding(t) + reservations.beyond(r, target)
                if tokens <= 0 or blocks > cache.free:
                    if policy.blocked(r):
                        continue
                    blocked = True
                    break
                computed = hit + tokens
                admit(r, hit, computed)
                running[r] = None
                sequence[r] = self._admissions
                self._admissions += 1
                if self._reached and r in self._reached:
                    self.recomputed_tokens += max(0, self._reached.pop(r) - hit)
                else:
                    self.cached_tokens += hit
                    self.order.append(r)
                admitted(r, hit)
                prefilled(r, tokens)
                if self._on_step:
                    news.append((r, hit, tokens))
                room -= 1
                budget -= tokens
                num_chunks += 1
                prefill += tokens
                prefill_context += hit
                pairs += tokens * (2 * hit + tokens + 1)
                if computed < target:
                    prefilling[r] = computed
                    if reservations is not None:
                        reservations.prefilling(r, computed)
                    continue
                sampled += 1
                if computed == need[r]:
                    ended.append(r)
                else:
                    enter(r, computed, t + 1)
                    if reservations is not None:
                        reservations.decoding(r, computed - t - 1)
            if not decodes and not num_chunks and self._leaving and not preempted:
                self._release_leaving()  # vLLM schedules nothing, then that output comes in
                continue
            if not decodes and not num_chunks and not preempted:
                raise SchedulingError(
                    f"step {t}: nothing can be scheduled; {len(running)} running, "
                    f"{policy.num_waiting} waiting, {cache.free} of {cache.capacity} blocks free"
                )
            held = cache.capacity - cache.free
            if held > self.peak_held:
                self.peak_held = held
            row: StepRow | None = None
            if self._on_step is not None:
                idle = {*stalled, *self._leaving, *prefilling}
                name = self._workload.request_id
                row = step_row(t, name, running, chunks, news, idle, preempted, cache.free)

            released = self._leaving
            if released:
                self._release_leaving()

            # 3. The step is computed: chunks move on, requests sample, some are done.
            alive = len(running)
            decoding.context_tokens += decodes
            ended += decoding.take_ended(t)
            self.step = t + 1
            for r, computed, tokens in chunks:
                prefill += tokens
                prefill_context += computed
                pairs += tokens * (2 * computed + tokens + 1)
                computed += tokens
                if computed < goal[r]:
                    prefilling[r] = computed
                    continue
                del prefilling[r]
                sampled += 1
                if computed == need[r]:
                    ended.append(r)
                else:
                    enter(r, computed, t + 1)
                    if reservations is not None:
                        reservations.decoding(r, computed - t - 1)
            pairs //= 2
            counts = (num_chunks, prefill, prefill_context, pairs, sampled)
            out.record(StepEntry(decodes, context, held, alive, *counts))
            if ended and self._finish(ended, t):
                released = ended
            if row is not None and self._on_step is not None:
                row["finished"] = [self._workload.request_id(r) for r in ended]
                self._on_step(row)

            # 4. Nobody can come before somebody goes: take the quiet steps until then at once.
            if (
                not prefilling
                and not preempted
                and not self._leaving
                and not self._single_steps
                and decoding.count
                and (
                    not policy.num_waiting
                    or (policy.waits_for_finish and blocked and not released)
                    or len(running) >= max_seqs
                )
            ):
                self._skip_quiet_steps(out, last_step)
        return out

    def _grow(self, r: int, computed: int, target: int) -> None:
        self._cache.grow(r, computed, target)
        if self._reservations is not None:
            self._reservations.prefilling(r, target)

    def _finish(self, ended: list[int], step: int) -> bool:
        """Note requests whose last token is computed; return whether they are released at once."""
        if len(ended) > 1:
            ended.sort(key=self._sequence.__getitem__)
        for r in ended:
            self.finish_step[r] = step
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

    def _skip_quiet_steps(self, out: StepColumns, last_step: int) -> None:
        """Record the steps until the next finish in one entry: only contexts grow in them."""
        decoding, cache = self._decoding, self._cache
        steps = min(decoding.next_end(), last_step, self._policy.wake_step) - self.step
        # every decode crosses one block edge in `block_size` steps
        steps = min(steps, cache.free // decoding.count * cache.block_size)
        if steps <= 0:
            return
        cache.take(decoding.blocks_needed(self.step, steps))
        held = cache.capacity - cache.free
        self.peak_held = max(self.peak_held, held)
        n = decoding.count
        out.record(
            StepEntry(n, decoding.context_tokens, held, len(self._running), 0, 0, 0, 0, n, steps)
        )
        decoding.context_tokens += n * steps
        self.step += steps


class SchedulingError(RuntimeError):
    """The engine can go no further: a policy offered nothing, or a request larger than the cache.

    Requests that cannot fit are refused before a run, so this is a defect of a policy.
    """
