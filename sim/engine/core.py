"""One replica's scheduler loop: continuous batching with chunked prefill, vLLM V1's rules.

Each step first serves RUNNING requests in admission order, then admits WAITING ones while budget,
slots and KV blocks last; a request that cannot grow preempts the last one admitted.

A step costs O(what changed). Decoding requests are sums: their number, their context tokens, and
per block phase how many cross a block edge in this step. When each of them ends is known to the
simulator (not to the policy), so it waits in a calendar. Only a step that runs out of blocks, or
whose budget does not reach the end of the running list, is walked request by request.
"""

from collections.abc import Callable

from bssim.sim.engine.config import EngineConfig
from bssim.sim.engine.kv_cache import KVCache
from bssim.sim.engine.running import RunningRequests, SchedulingError
from bssim.sim.engine.step_columns import StepColumns, StepEntry, StepRow, step_row
from bssim.sim.schedulers.interface import UNLIMITED, AdmissionPolicy
from bssim.sim.workload.workload import Workload


class EngineCore(RunningRequests):
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
        super().__init__(workload, policy, config, cache, reserved_tokens)
        self.peak_held = 0
        self._on_step = on_step
        self._single_steps = single_steps or on_step is not None
        self._watermark = int(config.watermark * (cache.capacity + 1))

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
        match, admit = cache.match, cache.admit
        peek, token_limit = policy.peek, policy.token_limit
        admitted, prefilled = policy.admitted, policy.prefilled
        paced = policy.paced
        on_step, append_to_order = self._on_step, self.order.append
        watermark, reservations = self._watermark, self._reservations
        grow = cache.grow if reservations is None else self._grow
        keeps_room = watermark > 0 or reservations is not None
        admissions, cached_tokens = self._admissions, 0
        out = StepColumns()
        last_step = self.step + max_steps
        while self.step < last_step and (running or policy.num_waiting):
            t = self.step
            decodes = decoding.count
            context = decoding.context_tokens
            budget = max_tokens - decodes
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
                blocks = crossing
                for r, computed in prefilling.items():
                    tokens = goal[r] - computed
                    if tokens > chunk_cap:
                        tokens = chunk_cap
                    if paced:
                        limit = token_limit(r)
                        if tokens > limit:
                            tokens = limit
                    if tokens > budget:
                        if r != next(reversed(running)):  # it would end before the list does
                            walk = True
                            break
                        tokens = budget
                    if tokens > 0:
                        chunks.append((r, computed, tokens))
                        blocks += -(-(computed + tokens) // block_size) + -computed // block_size
                        budget -= tokens
                walk = walk or blocks > cache.free
            if walk:
                chunks, preempted, stalled, budget, context = self._walk_running()
                decodes = decoding.count - len(stalled)
            else:
                if crossing:
                    cache.take(crossing)
                for r, computed, tokens in chunks:
                    grow(r, computed, computed + tokens)
                    if paced:
                        prefilled(r, tokens)
            num_chunks = len(chunks)
            prefill = prefill_context = pairs = 0  # pairs: twice their number
            sampled = decodes
            ended: list[int] = []
            entering: list[tuple[int, int]] = []  # decode from the next step on

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
                if paced:
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
                sequence[r] = admissions
                admissions += 1
                if self._reached and r in self._reached:
                    self.recomputed_tokens += max(0, self._reached.pop(r) - hit)
                else:
                    cached_tokens += hit
                    append_to_order(r)
                admitted(r, hit)
                if paced:
                    prefilled(r, tokens)
                if on_step:
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
                    entering.append((r, computed))
                    if reservations is not None:
                        reservations.decoding(r, computed - t - 1)
            if not decodes and not num_chunks and self._leaving and not preempted:
                self._release_leaving()  # vLLM schedules nothing, then that output comes in
                continue
            if not decodes and not num_chunks and not preempted:
                if self._fed:
                    break
                raise SchedulingError(
                    f"step {t}: nothing can be scheduled; {len(running)} running, "
                    f"{policy.num_waiting} waiting, {cache.free} of {cache.capacity} blocks free"
                )
            held = cache.capacity - cache.free
            if held > self.peak_held:
                self.peak_held = held
            row: StepRow | None = None
            if on_step is not None:
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
                    entering.append((r, computed))
                    if reservations is not None:
                        reservations.decoding(r, computed - t - 1)
            if entering:
                decoding.enter_all(entering, t + 1)
            pairs //= 2
            counts = (num_chunks, prefill, prefill_context, pairs, sampled)
            out.record(StepEntry(decodes, context, held, alive, *counts))
            if ended and self._finish(ended, t):
                released = ended
            if row is not None and on_step is not None:
                row["finished"] = [self._workload.request_id(r) for r in ended]
                on_step(row)

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
        self._admissions = admissions
        self.cached_tokens += cached_tokens
        return out

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
