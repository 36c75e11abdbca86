"""The running requests of a replica: schedule, advance, finish and preempt them."""

from collections.abc import Iterable
from itertools import count

from bssim.sim.engine.config import EngineConfig
from bssim.sim.engine.decode_batch import DecodeBatch
from bssim.sim.engine.kv_cache import KVCache
from bssim.sim.engine.policy import AdmissionPolicy
from bssim.sim.engine.requests import RequestColumns
from bssim.sim.engine.reservations import Reservations
from bssim.sim.engine.step import Step
from bssim.sim.engine.step_columns import StepColumns
from bssim.sim.engine.window_sums import WindowedDecodeBatch, WindowSums


class RunningRequests:
    """vLLM's running list with its KV blocks, chunks, decodes and reservations."""

    def __init__(
        self,
        columns: RequestColumns,
        policy: AdmissionPolicy,
        config: EngineConfig,
        cache: KVCache,
        promised_blocks: list[int] | None,
        keeps_finished: bool,
        windows: WindowSums | None = None,
    ) -> None:
        """See `bssim.sim.engine.core.EngineCore`."""
        self.members: dict[int, int] = {}
        """Running requests in the order of their admission, with its number."""
        self.prefilling: dict[int, int] = {}
        """Requests with prompt tokens left to compute, and their computed tokens."""
        size = cache.block_size
        self.decoding = (
            DecodeBatch(columns, size)
            if windows is None
            else WindowedDecodeBatch(columns, size, windows)
        )
        self.leaving: list[int] = []
        """Async scheduling: done, but their last token is in flight while the next step is
        scheduled, so they still hold slot and blocks."""
        self.kept: list[int] = []
        """Requests finished since they were last asked for, if finished requests keep their KV."""
        self.keeping = 0
        """Finished requests that hold KV."""
        self.reservations = (
            None if promised_blocks is None else Reservations(promised_blocks, cache.block_size)
        )
        self.preemption_step: list[int] = []
        """The step of each preemption."""
        self.finished = 0
        self.completed: list[int] = []
        """Requests by the step that computed their last token."""
        self.finish_step: list[int] = []
        """That step, for each of `completed`."""
        self.reached: dict[int, int] = {}
        """Preempted requests that wait, with the tokens they had computed."""
        self._arrival: dict[int, int] = {}
        """Number of a request's first admission: with equal priorities the order of submission."""
        self._regenerating: set[int] = set()
        """Requests that were preempted while they decoded, until they decode again."""
        self._windows = windows
        self._columns = columns
        self._policy = policy
        self._paced, self._token_limit = policy.paced, policy.token_limit
        self._prefilled = policy.prefilled
        self._cache = cache
        self._block_size = cache.block_size
        self._max_tokens = config.max_num_batched_tokens
        self._async = config.async_scheduling
        self._by_priority = config.policy == "priority"
        self._keeps_finished = keeps_finished
        self._grow = cache.grow if self.reservations is None else self._grow_reserved

    def _grow_reserved(self, r: int, computed: int, target: int) -> None:
        assert self.reservations is not None
        self._cache.grow(r, computed, target)
        self.reservations.prefilling(r, target)

    # ---- schedule: a token for each decode, a chunk for each unfinished prefill ----

    def serve(self, step: Step) -> None:
        """Schedule the running requests: all at once, or one by one if not all can be served."""
        blocks = self.decoding.phase[step.number % self._block_size]
        fits = self._plan_chunks(step, blocks) if self.prefilling else blocks <= self._cache.free
        if not fits:
            self._serve_one_by_one(step)
        elif blocks:
            self._cache.take(blocks)
        if step.chunks:
            self._compute_chunks(step, fits)

    def _plan_chunks(self, step: Step, blocks: int) -> bool:
        """Give each prefill its chunk beside decodes that take ``blocks``; False if not all fit."""
        goal, size, cap = self._columns.goal, self._block_size, step.chunk_cap
        budget, paced, chunks = step.budget, self._paced, step.chunks
        for r, computed in self.prefilling.items():
            tokens = goal[r] - computed
            if tokens > cap:
                tokens = cap
            if paced:
                limit = self._token_limit(r)
                if tokens > limit:
                    tokens = limit
            if tokens > budget:
                if r != next(reversed(self.members)):
                    return False  # the budget would end before the list does
                tokens = budget
            if tokens > 0:
                chunks[r] = tokens
                blocks += -(-(computed + tokens) // size) + -computed // size
                budget -= tokens
        step.budget = budget
        return blocks <= self._cache.free

    def _compute_chunks(self, step: Step, allocate: bool) -> None:
        """Move prefills on by their chunks; ``allocate``: blocks for them, too."""
        goal, prefilling, grow = self._columns.goal, self.prefilling, self._grow
        paced, prefilled = self._paced, self._prefilled
        prefill = context = twice_pairs = 0
        for r, tokens in step.chunks.items():
            computed = prefilling[r]
            end = computed + tokens
            if allocate:
                grow(r, computed, end)
                if paced:
                    prefilled(r, tokens)
            prefill += tokens
            context += computed
            twice_pairs += tokens * (computed + end + 1)
            if end < goal[r]:
                prefilling[r] = end
            else:
                del prefilling[r]
                step.caught_up.append(r)
        step.prefill, step.prefill_context, step.twice_pairs = prefill, context, twice_pairs

    def _serve_one_by_one(self, step: Step) -> None:
        """Schedule one by one, as vLLM does. Without free blocks, the last request is preempted."""
        budget = self._max_tokens
        given: dict[int, int] = {}
        for r in list(self.members):
            if budget <= 0:
                break
            if r not in self.members or r in self.leaving:  # preempted further up, or done
                continue
            computed, tokens = self._next_tokens(r, step, budget)
            if tokens <= 0:
                continue
            blocks = self._cache.blocks_for(computed, computed + tokens)
            while blocks > self._cache.free and r in self.members:
                if self._shares_with_itself():
                    tokens = blocks = self._cache.free
                    break
                budget += self._preempt_one(step, given)
            if r not in self.members:
                break
            if r in self.prefilling:
                self._grow(r, computed, computed + tokens)
                self._policy.prefilled(r, tokens)
            else:
                self._cache.take(blocks)
            given[r] = tokens
            budget -= tokens
        step.budget = budget
        self._part(step, given)

    def _shares_with_itself(self) -> bool:
        """Whether a request lacks room only for tokens that it holds already.

        Requests that are preempted may have computed more of a shared prefix than the one that
        stays. It holds this prefix, and needs room to compute the tokens again, one chunk at a
        time. If it were preempted too, all of them would start again, and this would never end.
        """
        alone = len(self.members) == 1 and not self.keeping
        return alone and self._block_size == 1 and self._cache.free > 0

    def _next_tokens(self, r: int, step: Step, budget: int) -> tuple[int, int]:
        """Return the computed tokens of a running request, and the tokens that it gets now."""
        computed = self.prefilling.get(r, -1)
        if computed < 0:
            return self._columns.base[r] + step.number, 1
        limit = min(step.chunk_cap, self._policy.token_limit(r), budget)
        return computed, min(self._columns.goal[r] - computed, limit)

    def _part(self, step: Step, given: dict[int, int]) -> None:
        """Sort the scheduled tokens into chunks, decodes and stalled decodes."""
        step.chunks = {}
        step.context = 0
        stalled = []
        for r in self.members:
            if r in self.prefilling:
                if r in given:
                    step.chunks[r] = given[r]
            elif r in given:
                step.context += self._columns.base[r] + step.number
            elif r not in self.leaving:
                stalled.append(r)
        step.stalled = tuple(stalled)
        for r in stalled:
            self.decoding.stall(r, step.number)
            if self.reservations is not None:
                self.reservations.decoding(r, self._columns.base[r])
        step.decodes = self.decoding.count - len(stalled)

    # ---- the step is computed ----

    def complete(self, step: Step, held: int, out: StepColumns) -> list[int]:
        """Advance scheduled requests; return those that computed their last token.

        The sums of the step, in which ``held`` blocks are held, are recorded in ``out``.
        """
        t = step.number
        if self.leaving:
            self.release_leaving()
        if self._windows is not None:
            self._note_chunks(step, self._windows)
        alive = len(self.members)
        self.decoding.context_tokens += step.decodes
        decodes, context, caught_up = step.decodes, step.context, step.caught_up
        sampled = decodes + len(caught_up)
        chunks = len(step.chunks) + len(step.admitted)
        if self._regenerating:
            decodes, context, chunks = self._regenerate(step)
        out.record(
            decodes,
            context,
            held,
            alive,
            chunks,
            step.prefill,
            step.prefill_context,
            step.twice_pairs,
            sampled,
        )
        ended = self.decoding.take_ended(t) if t in self.decoding.calendar else []
        if caught_up:
            ended += self.decoding.enter(caught_up, t + 1)
            if self.reservations is not None:
                self._reserve_decodes(caught_up, ended)
        if ended:
            self._finish(ended, t)
        return ended

    def _regenerate(self, step: Step) -> tuple[int, int, int]:
        """Count tokens generated right after a preemption as decodes, not as ends of a prefill.

        Such a token reads the whole context, as it would have without the preemption; only what
        had been computed before is prefilled again. Returns decodes, their context and chunks.
        """
        decodes, context, chunks = step.decodes, step.context, len(step.chunks) + len(step.admitted)
        for r in step.caught_up:
            if r not in self._regenerating:
                continue
            self._regenerating.remove(r)
            before = self._columns.goal[r] - 1
            decodes += 1
            context += before
            step.prefill -= 1
            step.twice_pairs -= 2 * (before + 1)
            if step.admitted.get(r) == before or step.chunks.get(r) == 1:
                chunks -= 1  # there was nothing else in it
                step.prefill_context -= before
        return decodes, context, chunks

    def _reserve_decodes(self, requests: list[int], ended: list[int]) -> None:
        """Turn the reservations of requests that now decode into those of decodes."""
        assert self.reservations is not None
        for r in requests:
            if r not in ended:
                self.reservations.decoding(r, self._columns.base[r])

    def _finish(self, ended: list[int], step: int) -> None:
        """Note requests whose last token is computed; release them at once unless async."""
        if len(ended) > 1:
            ended.sort(key=self.members.__getitem__)
        self.completed += ended
        self.finish_step += [step] * len(ended)
        if self.reservations is not None:
            for r in ended:
                self.reservations.remove(r)
        if self._async:
            self.leaving = ended
        else:
            self._release(ended)

    def release_leaving(self) -> None:
        """Release the requests whose last token has arrived."""
        leaving, self.leaving = self.leaving, []
        self._release(leaving)

    def _release(self, done: list[int]) -> None:
        """Release finished requests in running order, as vLLM does."""
        members = self.members
        if self._keeps_finished:
            self.kept += done
            self.keeping += len(done)
        else:
            self._cache.release_finished(done, self._columns.need)
        for r in done:
            del members[r]
        self._policy.all_finished(done)
        self.finished += len(done)

    def free_kept(self, r: int) -> None:
        """Free the KV of a finished request that kept it; its prefix stays cached as usual."""
        self._cache.release(r, self._columns.need[r], True)
        self.keeping -= 1

    def _note_chunks(self, step: Step, windows: WindowSums) -> None:
        """Note what windows see of the step's chunks; `complete` says what counts as a decode."""
        t, goal = step.number, self._columns.goal
        begin = {r: self.prefilling.get(r, goal[r]) - n for r, n in step.chunks.items()}
        for r, computed in (begin | step.admitted).items():
            end = self.prefilling.get(r, goal[r])
            generated = r in self._regenerating and end >= goal[r]
            if generated:
                windows.decodes(end - 1 - t, t, t)
            if end - computed > generated:
                windows.prefills(t, computed, end - computed - generated)

    # ---- preemption ----

    def _preempt_one(self, step: Step, given: dict[int, int]) -> int:
        """Preempt the victim; return the tokens that this step had scheduled for it."""
        victim = self._victim()
        tokens = given.pop(victim, 0)
        self._preempt(victim, step.number, tokens)
        step.preempted += (victim,)
        return tokens

    def note_arrivals(self, requests: Iterable[int], first: int) -> None:
        """Note first admissions, the first of which has the number ``first``."""
        self._arrival |= zip(requests, count(first))

    def _victim(self) -> int:
        """Return the running request to preempt: the last, or the worst (priority, arrival)."""
        if not self._by_priority:
            return next(reversed(self.members))
        priority, arrival = self._columns.priority, self._arrival
        return max(self.members, key=lambda r: (priority[r], arrival[r]))

    def _preempt(self, r: int, step: int, scheduled: int) -> None:
        """Return a running request to the waiting ones; ``scheduled``: its tokens in this step."""
        self.preemption_step.append(step)
        if r in self.leaving:  # its last token comes in before it could be resumed
            self.leaving.remove(r)
            need = self._columns.need[r]
            self._cache.release(r, need, True, self._known_tokens(r, need, 0))
            del self.members[r]
            self._policy.finished(r)
            self.finished += 1
            return
        del self.members[r]
        computed = self.prefilling.pop(r, None)
        # Blocks are hashed when allocated: those of this step stay in the cache, uncomputed.
        known = None
        if computed is None:
            computed = self.decoding.drop(r, step)
            if self._async:
                known = self._known_tokens(r, computed, scheduled)
            self._columns.goal[r] = computed + 1
            self._regenerating.add(r)
        self.reached[r] = computed
        self._cache.release(r, computed + scheduled, False, known)
        if self.reservations is not None:
            self.reservations.remove(r)
        self._policy.preempted(r)

    def _known_tokens(self, r: int, computed: int, scheduled: int) -> int:
        """Tokens of a decoding request that async scheduling can hash now.

        The token that the last step samples is in flight: a block that it fills gets its hash
        when the next token of the request is scheduled.
        """
        return computed if scheduled or computed == self._columns.goal[r] else computed - 1
