"""Extensions of vLLM's scheduler. Only this file uses its private interface.

vLLM does not consider ``scheduler_cls`` a public interface, so it may change in any release.
`check_version` names the releases with which this file was tested.

Two functions extend vLLM's own scheduler, which still makes every other decision (token budget,
chunks, prefix look-up, allocation, preemption):

* `recording` records what each step scheduled, as rows of the ``--steps`` format;
* `admitting` replaces the waiting queue with any AdmissionPolicy of the simulator.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bssim.errors import InputError
from bssim.sim.engine import AdmissionPolicy

TESTED_VERSIONS = ("0.25.1", "0.32.0")
StepRow = dict[str, Any]


def check_version(version: str, allow_untested: bool = False) -> None:
    """Raise InputError unless this file was tested with the vLLM release ``version``."""
    release = version.split("+")[0]
    if release not in TESTED_VERSIONS and not allow_untested:
        raise InputError(
            "vLLM",
            f"version {version}",
            f"{' or '.join(TESTED_VERSIONS)}, whose scheduler this version of bssim was tested "
            "with (--allow-untested-vllm tries anyway)",
        )


def base_scheduler(async_scheduling: bool) -> Any:
    """Return vLLM's own scheduler class."""
    if async_scheduling:
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler

        return AsyncScheduler
    from vllm.v1.core.sched.scheduler import Scheduler

    return Scheduler


def recording(base: Any) -> Any:
    """Return a subclass of the scheduler class ``base`` that records its decisions.

    ``rows`` holds one row per step. A call of ``schedule()`` that schedules and preempts nothing
    is not a step. ``finished`` in a row names the requests whose last token that step computes;
    with async scheduling they keep their slot and blocks until the next step is scheduled.
    ``applied`` is the row whose output arrived last, or None if that call was not a step.
    """

    class Recording(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.rows: list[StepRow] = []
            self.applied: StepRow | None = None
            self._victims: list[str] = []
            self._in_flight: dict[int, StepRow] = {}

        def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
            self._victims.append(request.request_id)  # vLLM reports them as a set
            super()._preempt_request(request, *args, **kwargs)

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            output = super().schedule(*args, **kwargs)
            victims, self._victims = self._victims, []
            if output.num_scheduled_tokens or victims:
                row = {
                    "step": len(self.rows),
                    "scheduled": dict(output.num_scheduled_tokens),
                    "cached": _cached(output),
                    "preempted": victims,
                    "free_blocks": self.kv_cache_manager.block_pool.get_num_free_blocks(),
                    "finished": [],
                }
                self.rows.append(row)
                self._in_flight[id(output)] = row
            return output

        def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            row = self._in_flight.pop(id(scheduler_output), None)
            requests = _present(self.requests, scheduler_output)
            result = super().update_from_output(scheduler_output, *args, **kwargs)
            self.applied = row
            if row is not None:
                row["finished"] = [r for r, request in requests.items() if request.is_finished()]
            return result

    return Recording


def _present(requests: dict[str, Any], output: Any) -> dict[str, Any]:
    """Return the scheduled requests that still exist; a stop string may have removed one."""
    return {r: requests[r] for r in output.num_scheduled_tokens if r in requests}


def _cached(output: Any) -> dict[str, int]:
    """Return the cached tokens of each request that this step admitted or resumed."""
    cached = {r.req_id: r.num_computed_tokens for r in output.scheduled_new_reqs}
    again = output.scheduled_cached_reqs
    computed = zip(again.req_ids, again.num_computed_tokens, strict=True)
    cached |= {r: tokens for r, tokens in computed if r in again.resumed_req_ids}
    return {r: cached[r] for r in output.num_scheduled_tokens if r in cached}


def admitting(base: Any) -> Any:
    """Return a subclass of ``base`` that can admit according to a policy."""

    class Admitting(base):  # type: ignore[misc]
        admission: AdmissionPolicy | None = None
        """Not `policy`: vLLM's scheduler has an attribute of that name."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._own_queue = self.waiting

        def admit_from(
            self,
            policy: AdmissionPolicy | None,
            index_of: Callable[[str], int],
            enqueue: Callable[[int], None] | None = None,
        ) -> None:
            """Admit from ``policy``, or from vLLM's own queue if None. No request may be waiting.

            ``index_of`` maps a vLLM request id to the row of the workload. ``enqueue`` adds a row
            to the engine when the policy first offers it; without it, all rows must be added
            beforehand. Of `token_limit`, only the value 0 (not in this step) has an effect,
            because vLLM has one chunk limit for all requests.
            """
            self._index_of = index_of
            if policy is not None:
                self.waiting = _policy_queue(self, policy, index_of, enqueue)
            elif self.admission is not None:
                self.waiting = self._own_queue
            self.admission = policy

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            if self.admission is None:
                return super().schedule(*args, **kwargs)
            self.waiting.begin_step()
            output = super().schedule(*args, **kwargs)
            self.waiting.end_step(output.num_scheduled_tokens)
            return output

        def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
            requests = _present(self.requests, scheduler_output)
            result = super().update_from_output(scheduler_output, *args, **kwargs)
            if self.admission is not None:
                for request_id, request in requests.items():
                    if request.is_finished():
                        self.waiting.finish(request_id)
            return result

        def finish_requests(self, *args: Any, **kwargs: Any) -> Any:
            """Tell the policy about requests that end outside a step, e.g. at a stop string."""
            finished = super().finish_requests(*args, **kwargs)
            if self.admission is not None:
                for request in finished or ():
                    self.waiting.finish(request.request_id)
            return finished

    return Admitting


class SchedulerView:
    """The EngineView of a vLLM scheduler at the start of a step."""

    def __init__(self, scheduler: Any, request_of: Mapping[int, Any]) -> None:
        self._scheduler = scheduler
        self._request_of = request_of
        self._goal: dict[str, int] = {}
        self.step = -1
        self.decodes = 0
        self.decode_context_tokens = 0

    def admitted(self, request: Any) -> None:
        """Record the tokens that the request computes before it decodes: all that it has now.

        A resumed request computes its earlier outputs as part of its prompt.
        """
        self._goal[request.request_id] = request.num_tokens

    def in_prefill(self, request: Any) -> bool:
        """Whether a running request still computes tokens that it had at its admission."""
        return self.left_to_prefill(request) > 0

    def left_to_prefill(self, request: Any) -> int:
        """Return the tokens that it had at its admission and has not computed yet."""
        goal = self._goal.get(request.request_id, request.num_prompt_tokens)
        return max(int(goal - request.num_computed_tokens), 0)

    def forget(self, request_id: str) -> None:
        """Drop a finished request."""
        self._goal.pop(request_id, None)

    def refresh(self) -> None:
        """Count the requests that will decode in the step that begins."""
        self.step += 1
        decoding = [r for r in self._scheduler.running if not self.in_prefill(r)]
        self.decodes = len(decoding)
        self.decode_context_tokens = sum(r.num_computed_tokens for r in decoding)

    def cached_prefix_tokens(self, request: int) -> int:
        """See `EngineView.cached_prefix_tokens`."""
        found = self._scheduler.kv_cache_manager.get_computed_blocks(self._request_of[request])
        return int(found[1])

    def generated_tokens(self, request: int) -> int:
        """See `EngineView.generated_tokens`."""
        return int(self._request_of[request].num_output_tokens)

    def fits(self, request: int) -> bool:
        """Whether vLLM would admit the request now: the whole known sequence must fit."""
        scheduler, waiting = self._scheduler, self._request_of[request]
        manager = scheduler.kv_cache_manager
        blocks = manager.get_computed_blocks(waiting)[0].blocks[0]
        needed = -(-waiting.num_tokens // scheduler.block_size) - len(blocks)
        needed += sum(block.ref_cnt == 0 for block in blocks)
        if scheduler.running:
            needed += getattr(manager, "watermark_blocks", 0)
        return bool(needed <= manager.block_pool.get_num_free_blocks())


class _Requests(dict[int, Any]):
    """vLLM's requests by row. A missing one is added to the engine when it is looked up."""

    def __init__(self, enqueue: Callable[[int], None] | None) -> None:
        self._enqueue = enqueue

    def __missing__(self, index: int) -> Any:
        if self._enqueue is None:
            raise KeyError(index)
        self._enqueue(index)  # calls the queue's `add_request`
        return self[index]


class _PolicyQueue:
    """vLLM's waiting queue: true if a request is admissible; peek shows it, pop takes it."""

    def __init__(
        self,
        scheduler: Any,
        policy: AdmissionPolicy,
        index_of: Callable[[str], int],
        enqueue: Callable[[int], None] | None,
    ) -> None:
        self._scheduler, self._policy, self._index_of = scheduler, policy, index_of
        self._holds_all = enqueue is None
        self._requests = _Requests(enqueue)
        self._waiting: set[int] = set()
        self._dropped: set[int] = set()
        self._arrived: set[int] = set()
        self._prefilling: set[str] = set()
        self._view = SchedulerView(scheduler, self._requests)
        self._offered: int | None = None
        self._hit = 0
        self._told: dict[str, int] = {}
        """Prompt tokens of this step that the policy knows, by vLLM request id."""
        self._budget = 0
        self._seen = 0
        """Running requests whose tokens of this step the policy knows."""

    def begin_step(self) -> None:
        self._view.refresh()
        self._offered = None
        self._policy.begin_step(self._view)
        running = self._scheduler.running
        self._prefilling = {r.request_id for r in running if self._view.in_prefill(r)}
        self._told, self._seen = {}, 0
        self._budget = self._scheduler.max_num_scheduled_tokens - self._view.decodes

    def end_step(self, scheduled: Mapping[str, int]) -> None:
        """Tell the policy about the prompt tokens that it does not know yet."""
        for request_id, tokens in scheduled.items():
            rest = tokens - self._told.get(request_id, 0)
            if rest > 0 and request_id in self._prefilling:
                self._policy.prefilled(self._index_of(request_id), rest)

    def _tell(self) -> None:
        """Tell the policy what vLLM has scheduled in this step before it asks for a request.

        vLLM does not show this until the step is complete, but it follows: running requests come
        first, each with all of its prompt that the chunk limit and the token budget allow.
        """
        limit = self._scheduler.scheduler_config.long_prefill_token_threshold or self._budget
        running = self._scheduler.running
        for request in running[self._seen :]:  # vLLM appends whatever it admits
            name = request.request_id
            if name not in self._prefilling:
                continue
            tokens = min(self._view.left_to_prefill(request), limit, self._budget)
            self._told[name] = tokens
            self._budget -= tokens
            if tokens > 0:
                self._policy.prefilled(self._index_of(name), tokens)
        self._seen = len(running)

    def finish(self, request_id: str) -> None:
        index = self._index_of(request_id)
        if index not in self._dropped:
            self._policy.finished(index)
        self._requests.pop(index, None)
        self._view.forget(request_id)

    def _offer(self) -> int:
        """Return the request to admit next, or -1. vLLM is certain to admit it.

        The policy is asked once per admission, because its answer would change after vLLM has
        allocated the blocks.
        """
        if self._offered is None:
            self._tell()
            self._offered = self._ask()
            if self._offered >= 0:
                self._hit = self._view.cached_prefix_tokens(self._offered)
        return self._offered

    def _ask(self) -> int:
        while (index := self._policy.peek()) >= 0:
            if index in self._dropped:  # it finished while it was preempted
                self._dropped.discard(index)
                self._policy.admitted(index, 0)
                self._policy.finished(index)
            elif self._policy.token_limit(index) <= 0:
                return -1
            elif self._view.fits(index):
                return index
            elif not self._policy.blocked(index):
                return -1
        return -1

    def peek_request(self) -> Any:
        index = self._offer()
        if index < 0:
            raise IndexError("peek from an empty queue")
        return self._requests[index]

    def pop_request(self) -> Any:
        request = self.peek_request()
        index, self._offered = self._offer(), None
        if index not in self._arrived:  # vLLM breaks ties of priority by arrival
            self._arrived.add(index)
            request.arrival_time = float(len(self._arrived))
        self._waiting.discard(index)
        self._prefilling.add(request.request_id)
        self._view.admitted(request)
        self._policy.admitted(index, self._hit)
        return request

    def add_request(self, request: Any) -> None:
        index = self._index_of(request.request_id)
        self._requests[index] = request
        self._waiting.add(index)

    def prepend_request(self, request: Any) -> None:
        index = self._index_of(request.request_id)
        self._waiting.add(index)
        self._prefilling.discard(request.request_id)
        self._policy.preempted(index)

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        for request in requests:
            self.prepend_request(request)

    def remove_request(self, request: Any) -> None:
        self.remove_requests([request])

    def remove_requests(self, requests: Iterable[Any]) -> None:
        for index in [self._index_of(r.request_id) for r in requests]:
            if index in self._waiting:
                self._waiting.discard(index)
                self._dropped.add(index)

    def __bool__(self) -> bool:
        return self._offer() >= 0

    def __len__(self) -> int:
        return len(self._waiting) if self._holds_all else self._policy.num_waiting

    def __iter__(self) -> Iterator[Any]:
        return (self._requests[i] for i in sorted(self._waiting))


def _policy_queue(
    scheduler: Any,
    policy: AdmissionPolicy,
    index_of: Callable[[str], int],
    enqueue: Callable[[int], None] | None,
) -> Any:
    """Return a vLLM waiting queue that ``policy`` serves."""
    from vllm.v1.core.sched.request_queue import RequestQueue

    queue: Any = type("PolicyQueue", (_PolicyQueue, RequestQueue), {})
    return queue(scheduler, policy, index_of, enqueue)
