"""The scheduler loop of one replica: continuous batching with chunked prefill, as in vLLM V1.

The time per step depends only on what changes. Decoding requests are kept as sums: their number,
their context tokens, and the number that cross a block edge in each step. The simulator (but not
the policy) knows when each of them ends and keeps a calendar of these steps. The core visits
single requests only if a step runs out of blocks or budget.
"""

from collections.abc import Callable, Sequence

from bssim.cost_models.llm import AttentionGroup
from bssim.sim.engine.config import EngineConfig
from bssim.sim.engine.kv_cache import KVCache
from bssim.sim.engine.policy import UNLIMITED, AdmissionPolicy
from bssim.sim.engine.requests import RequestColumns
from bssim.sim.engine.running import RunningRequests
from bssim.sim.engine.step import Step
from bssim.sim.engine.step_columns import StepColumns, StepRow, step_row
from bssim.sim.engine.window_sums import WindowSums


class SchedulingError(RuntimeError):
    """The engine cannot continue: a policy offered nothing, or a request larger than the cache.

    Requests that cannot fit are refused before a run, so this is a defect of a policy.
    """


class EngineCore:
    """The state of one replica. `advance` runs steps; nothing here depends on seconds.

    It is also the `EngineView` of the policy.
    """

    def __init__(
        self,
        columns: RequestColumns,
        policy: AdmissionPolicy,
        config: EngineConfig,
        cache: KVCache,
        *,
        promised_blocks: list[int] | None = None,
        on_step: Callable[[StepRow], None] | None = None,
        single_steps: bool = False,
        keeps_finished: bool = False,
        windowed: AttentionGroup | None = None,
    ) -> None:
        """``promised_blocks``: per request, for prompt + estimated output (reserve admission).

        ``single_steps``: record every step by itself. ``keeps_finished``: finished requests hold
        their KV until `free_kept`. ``windowed``: layers of the model that have a window, whose sums
        are recorded too.
        """
        self.step = 0
        self.decodes = 0
        """See `EngineView.decodes`."""
        self.decode_context_tokens = 0
        """See `EngineView.decode_context_tokens`."""
        self.cached_tokens = 0
        """Prompt tokens hit at first admissions."""
        self.recomputed_tokens = 0
        self.peak_held = 0
        """Most KV blocks held at once."""
        self.order: list[int] = []
        """Requests by first admission."""
        self.admission_step: list[int] = []
        """The step of that, for each of `order`."""
        self.last_admission = 0
        """Step of the last admission so far, also of a preempted request."""
        self._windows = None if windowed is None else WindowSums(windowed)
        self.requests = RunningRequests(
            columns, policy, config, cache, promised_blocks, keeps_finished, self._windows
        )
        self._columns = columns
        self._policy = policy
        self._config = config
        self._cache = cache
        self._admissions = 0
        self._received: list[int] = []
        self._on_step = on_step
        self._single_steps = single_steps or on_step is not None
        self._max_tokens = config.max_num_batched_tokens
        self._max_seqs = config.max_num_seqs
        self._watermark = int(config.watermark * (cache.capacity + 1))
        self._keeps_room = self._watermark > 0 or self.requests.reservations is not None
        self._threshold = config.long_prefill_token_threshold or UNLIMITED

    # ---- what others may see ----

    @property
    def finished(self) -> int:
        """Number of finished and released requests."""
        return self.requests.finished

    @property
    def completed(self) -> list[int]:
        """Requests by the step that computed their last token."""
        return self.requests.completed

    @property
    def finish_step(self) -> list[int]:
        """That step, for each of `completed`."""
        return self.requests.finish_step

    @property
    def preemptions(self) -> int:
        """Number of times that a running request was preempted."""
        return len(self.requests.preemption_step)

    @property
    def preemption_step(self) -> list[int]:
        """The step of each preemption."""
        return self.requests.preemption_step

    @property
    def block_size(self) -> int:
        """Tokens of a KV block."""
        return self._cache.block_size

    @property
    def held_tokens(self) -> int:
        """KV tokens held, in whole blocks."""
        return (self._cache.capacity - self._cache.free) * self._cache.block_size

    @property
    def unfinished(self) -> bool:
        """Whether any request is running or waiting."""
        return bool(self.requests.members) or self._policy.num_waiting > 0

    def cached_prefix_tokens(self, request: int) -> int:
        """See `EngineView.cached_prefix_tokens`."""
        return self._cache.match(request, self._columns.prompt[request])[0]

    def generated_tokens(self, request: int) -> int:
        """See `EngineView.generated_tokens`."""
        columns, requests = self._columns, self.requests
        prompt = columns.prompt[request]
        if request in requests.prefilling or request not in requests.members:
            return columns.goal[request] - prompt
        return columns.base[request] + self.step + 1 - prompt

    # NOTE on a step. As in vLLM there is neither a prefill phase nor a decode phase. A request
    # has tokens that it knows (its prompt, and what it has generated) and tokens that are
    # computed; each step gives it tokens, so that the second number catches up with the first.
    # Where it has caught up, the step samples one more token that it knows.
    #
    # 1. RUNNING requests come first, in the order of their admission. A decode gets its one
    #    token, a prefill a chunk as large as the token budget, the chunk limit of the engine and
    #    the pace of the policy allow. One that finds no KV blocks preempts the last admitted.
    # 2. WAITING requests are admitted as the policy offers them, while budget, slots and blocks
    #    last, unless this step had to preempt. All that is known of a request must fit, not just
    #    its first chunk.
    # 3. The step is COMPUTED: chunks move on, requests sample, some of them are done.
    # 4. If no request can join before one ends, the QUIET steps until then are one entry.

    def advance(self, max_steps: int) -> StepColumns:
        """Schedule and complete up to `max_steps` steps (fewer when the work is done)."""
        requests, policy, cache = self.requests, self._policy, self._cache
        out = StepColumns()
        first_step = self.step
        last_step = self.step + max_steps
        while self.step < last_step and (requests.members or policy.num_waiting):
            step = self._new_step()
            policy.begin_step(self)
            requests.serve(step)
            full = len(requests.members) >= self._max_seqs
            if step.budget > 0 and not step.preempted and not full:
                self._admit_waiting(step)
            if not (step.decodes or step.chunks or step.admitted or step.preempted):
                if requests.leaving:  # vLLM schedules nothing, then that output comes in
                    requests.release_leaving()
                    continue
                if requests.keeping:  # room may come from outside
                    break
                raise self._stuck()
            row = None if self._on_step is None else self._row(step)
            released = bool(requests.leaving)
            held = cache.capacity - cache.free
            if held > self.peak_held:
                self.peak_held = held
            ended = requests.complete(step, held, out)
            self.step += 1
            if row is not None and self._on_step is not None:
                row["finished"] = [self._columns.name(r) for r in ended]
                self._on_step(row)
            if not (requests.prefilling or step.preempted or requests.leaving):
                made_room = released or bool(ended)
                self._skip_quiet_steps(out, last_step, step.blocked and not made_room)
        if self._windows is not None:
            out.windows.append(self._windows.take(first_step, self.step))
        return out

    def _new_step(self) -> Step:
        decoding, cap = self.requests.decoding, self._threshold
        if cap < UNLIMITED and len(self.requests.members) + self._policy.num_waiting == 1:
            cap = UNLIMITED  # a single request can starve no other
        n = self.decodes = decoding.count
        context = self.decode_context_tokens = decoding.context_tokens
        return Step(self.step, n, context, self._max_tokens - n, cap)

    def _admit_waiting(self, step: Step) -> None:
        """Admit requests that the policy offers, while there is room."""
        policy, members = self._policy, self.requests.members
        offered, allowed = policy.offer()
        while offered:
            refused = self._admit_first(step, offered, allowed)
            if refused >= 0 and not policy.blocked(refused):
                step.blocked = True
                break
            if not step.budget or len(members) >= self._max_seqs:
                break
            offered, allowed = policy.offer()
        if step.admitted:
            self._note_admissions(step.admitted)

    def _admit_first(self, step: Step, offered: Sequence[int], allowed: int) -> int:
        """Admit the first of the offered requests, as many as fit.

        They may share ``allowed`` tokens. Returns the request that was refused for lack of room,
        or -1.
        """
        cache, requests = self._cache, self.requests
        match, admit, size = cache.match, cache.admit, cache.block_size
        goal, members, hits = self._columns.goal, requests.members, step.admitted
        cap, budget, caught_up = step.chunk_cap, step.budget, step.caught_up
        slots = self._max_seqs - len(members)
        left = budget if budget < allowed else allowed
        keeps_room, number = self._keeps_room, self._admissions
        context = twice_pairs = 0
        refused = -1
        cached: list[int] = []
        given: list[int] = []
        for r in offered if len(offered) <= slots else offered[:slots]:
            target = goal[r]
            hit, unheld = match(r, target)
            tokens = target - hit
            if tokens > cap:
                tokens = cap
            if tokens > left:
                if not self._config.enable_chunked_prefill and tokens > budget - sum(given):
                    # chunks leave room in the next step
                    step.blocked = not (step.chunks or hits)
                    budget = sum(given)  # the rest stays unused
                    break
                tokens = left
            blocks = unheld + (target - hit if size == 1 else -(-target // size) - hit // size)
            if keeps_room:
                blocks += self._room_kept(r, target, step.number)
            if tokens <= 0 or blocks > cache.free:
                refused = r
                break
            computed = hit + tokens
            admit(r, hit, computed)
            members[r] = number
            number += 1
            hits[r] = hit
            if keeps_room:
                self._promise(r, computed)
            cached.append(hit)
            given.append(tokens)
            context += hit
            twice_pairs += tokens * (hit + computed + 1)
            left -= tokens
            if computed < target:
                requests.prefilling[r] = computed
                break
            caught_up.append(r)
            if not left:
                break
        if given:
            self._admissions = number
            prefill = sum(given)
            budget -= prefill
            step.prefill += prefill
            step.prefill_context += context
            step.twice_pairs += twice_pairs
            self._policy.all_admitted(offered[: len(given)], cached, given)
        step.budget = budget
        return refused

    def _note_admissions(self, hits: dict[int, int]) -> None:
        """Separate first admissions from requests that were preempted."""
        reached, first, cached_tokens = self.requests.reached, hits, sum(hits.values())
        if reached:
            first = {r: hit for r, hit in hits.items() if r not in reached}
            for r in hits.keys() - first.keys():
                self.recomputed_tokens += max(0, reached.pop(r) - hits[r])
                cached_tokens -= hits[r]
        self.cached_tokens += cached_tokens
        if self._config.policy == "priority":
            self.requests.note_arrivals(first, len(self.order))
        self.order += first
        self.admission_step += [self.step] * len(first)
        self.last_admission = self.step

    def _promise(self, r: int, computed: int) -> None:
        """Reserve the blocks of an admitted request that it does not hold yet."""
        reservations = self.requests.reservations
        if reservations is not None and computed < self._columns.need[r]:
            reservations.prefilling(r, computed)

    def _room_kept(self, r: int, target: int, step: int) -> int:
        """Return the blocks that admission must leave free beside those of ``target`` tokens."""
        if not self.requests.members:
            return 0
        reservations = self.requests.reservations
        if reservations is None:
            return self._watermark
        return self._watermark + reservations.outstanding(step) + reservations.beyond(r, target)

    def _skip_quiet_steps(self, out: StepColumns, last_step: int, blocked: bool) -> None:
        """Run the steps until the next finish, if no request can join before it.

        Only contexts grow in them. ``blocked``: only a finish can make room for the next request.
        The policy is not asked, even if every step is recorded by itself: how often a policy is
        asked may change its later decisions.
        """
        policy, decoding, cache = self._policy, self.requests.decoding, self._cache
        full = len(self.requests.members) >= self._max_seqs
        quiet = not policy.num_waiting or full or (policy.waits_for_finish and blocked)
        if not quiet or not decoding.count:
            return
        steps = min(decoding.next_end(), last_step, policy.wake_step) - self.step
        # every decode crosses one block edge in `block_size` steps
        steps = min(steps, cache.free // decoding.count * cache.block_size)
        if steps <= 0:
            return
        if self._single_steps:
            for _ in range(steps):
                self._run_quiet_steps(1, out)
        else:
            self._run_quiet_steps(steps, out)

    def _run_quiet_steps(self, steps: int, out: StepColumns) -> None:
        """Let all running requests decode for some steps, and record these in one entry."""
        decoding, cache = self.requests.decoding, self._cache
        cache.take(decoding.blocks_needed(self.step, steps))
        n, context = decoding.count, decoding.context_tokens
        if self._on_step is not None:
            self._on_step({**self._row(Step(self.step, n, context, 0, 0)), "finished": []})
        held = cache.capacity - cache.free
        decoding.context_tokens += n * steps
        alive = len(self.requests.members)
        out.record(n, context, held, alive, sampled=n, repeat=steps)
        self.step += steps
        self.peak_held = max(self.peak_held, held)

    def _row(self, step: Step) -> StepRow:
        requests = self.requests
        prefilling, goal = requests.prefilling, self._columns.goal
        return step_row(
            step,
            self._columns.name,
            requests.members,
            lambda r: prefilling.get(r, goal[r]),
            {*step.stalled, *requests.leaving, *prefilling},
            self._cache.free,
        )

    def _stuck(self) -> SchedulingError:
        return SchedulingError(
            f"step {self.step}: nothing can be scheduled; {len(self.requests.members)} running, "
            f"{self._policy.num_waiting} waiting, "
            f"{self._cache.free} of {self._cache.capacity} blocks free"
        )

    # ---- disaggregation: KV that others fetch, and KV that others computed ----

    def take_kept(self) -> list[int]:
        """Return the requests finished since the last call, which keep their KV."""
        kept, self.requests.kept = self.requests.kept, []
        return kept

    def free_kept(self, r: int) -> None:
        """Free the KV that a finished request kept."""
        self.requests.free_kept(r)

    @property
    def steps_to_room(self) -> int:
        """Steps until the next finish, the only event that makes room; 1 if others are first."""
        if not self._only_decodes:
            return 1
        return self.requests.decoding.next_end() - self.step + 1

    @property
    def _only_decodes(self) -> bool:
        return not self._policy.num_waiting and not self.requests.prefilling

    def receive(self, r: int) -> int | None:
        """Allocate for a prompt that was computed elsewhere, once the running have grown.

        Returns its tokens that are not cached here, None without room: as at any admission, there
        must be room for the token that is computed next, too. Preempted requests come first.
        """
        cache, size = self._cache, self._cache.block_size
        prompt, running = self._columns.prompt[r], len(self.requests.members)
        if not self._only_decodes or running + len(self._received) >= self._config.max_num_seqs:
            return None
        hit, unheld = cache.match(r, prompt + 1)
        blocks = -(-(prompt + 1) // size) - hit // size + unheld
        blocks += self.requests.decoding.phase[self.step % size]
        if running:
            blocks += self._watermark
        if blocks > cache.free:
            return None
        cache.admit(r, hit, prompt)
        self._received.append(r)
        return prompt - hit

    def join_received(self) -> None:
        """Decode, from the next step on, what was received."""
        for r in self._received:
            self.requests.members[r] = self._admissions
            self._admissions += 1
        self.requests.note_arrivals(self._received, len(self.order))
        self.order += self._received
        self.admission_step += [self.step] * len(self._received)
        if self._received:
            self.last_admission = self.step
        self.requests.decoding.enter(self._received, self.step)
        self._received = []
