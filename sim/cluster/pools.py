"""Prefill/decode disaggregation (DistServe, OSDI '24) as SimPy processes: two pools and links.

A prefill replica computes prompts and samples first tokens. The KV then waits in its memory until
the decode replica to which the request was sent has room and fetches it. Transfers to one replica
come one after another, as do those from one, and run beside compute; a decode replica's next step
waits for what it fetches in this one. A prefill replica without room for another prompt stalls,
which is the back-pressure.

A decode replica runs its engine ahead of the clock: which steps it takes follows from its queue
alone, and only durations (all steps priced in one go) and transfers need the clock. With an empty
queue it runs to the step in which the next prompt can come, by the length of its last step. So it
may see a request a step late, never early.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import simpy

from bssim.cost_models.step_cost import CostModel, OverlapModel
from bssim.sim.cluster.disaggregation import KVLink
from bssim.sim.cluster.phase_engines import DecodeEngine, PrefillEngine, Taken
from bssim.sim.cluster.replica import STEPS_PER_TIMEOUT, Replica
from bssim.sim.engine.core import EngineCore
from bssim.sim.engine.running import SchedulingError
from bssim.sim.result import KVTransfer, Outcome, Timeline
from bssim.sim.workload.workload import Workload

FloatArray = npt.NDArray[np.float64]
Process = Generator[simpy.Event, Any, None]
INFINITE = float("inf")


class _PoolReplica(Replica):
    """A replica of a pool: its steps do not follow each other without gaps."""

    def __init__(
        self,
        env: simpy.Environment,
        core: EngineCore,
        cost_model: CostModel,
        overlap: OverlapModel,
        batch_multiple: int,
        *,
        keep_timeline: bool,
    ) -> None:
        """See `Replica`."""
        super().__init__(core, cost_model, overlap, batch_multiple, keep_timeline=keep_timeline)
        self._env = env
        self._ends: list[FloatArray] = [np.zeros(0)]

    @property
    def end_s(self) -> FloatArray:
        """When each step ended, shape (steps,)."""
        return np.concatenate(self._ends)

    def timeline(self) -> Timeline:
        """See `Replica.timeline`."""
        return replace(super().timeline(), start_s=self.end_s - self.step_s)

    def _pass(self, step_s: FloatArray) -> Process:
        """Live through steps that follow each other."""
        if len(step_s):
            ends = self._env.now + np.cumsum(step_s)
            self._ends.append(ends)
            yield self._env.timeout(float(ends[-1]) - self._env.now)


class PrefillReplica(_PoolReplica):
    """Steps one by one, for every prompt is handed on when its step ends."""

    core: PrefillEngine

    def __init__(self, env: simpy.Environment, *args: Any, **options: Any) -> None:
        """See `Replica`; its core is a `PrefillEngine`."""
        super().__init__(env, *args, **options)
        self.link = simpy.Resource(env)
        """Held by the transfer that it sends."""
        self.next_prompt_s = 0.0
        """No prompt is handed on before this time; infinite after the last."""
        self.stalled_s = 0.0
        """Seconds without room for another prompt."""
        self._room = env.event()

    def compute(self, hand_on: Callable[["PrefillReplica", int], None]) -> Process:
        """Compute all prompts: the SimPy process."""
        env, core = self._env, self.core
        while core.unfinished:
            columns = core.advance(1)
            if columns.steps:
                step_s = self._price(columns)
                self.next_prompt_s = env.now + float(step_s.sum())
                yield from self._pass(step_s)
                for r in core.take_done():
                    hand_on(self, r)
            else:
                stalled = env.now
                self._room = env.event()
                yield self._room
                self.stalled_s += env.now - stalled
        self.next_prompt_s = INFINITE

    def fetched(self, r: int) -> None:
        """Free the KV of a prompt, and go on if room was what was missing."""
        self.core.let_go(r)
        if not self._room.triggered:
            self._room.succeed()


class DecodeReplica(_PoolReplica):
    """Runs ahead as far as its queue reaches, then lives through those steps on the clock."""

    core: DecodeEngine

    def __init__(self, env: simpy.Environment, *args: Any, **options: Any) -> None:
        """See `Replica`; its core is a `DecodeEngine`."""
        super().__init__(env, *args, **options)
        self.queued_tokens = 0
        """Prompt tokens of the requests that were sent here and are not being fetched yet."""
        self.held_tokens = 0
        """KV tokens held when it last took a request in, or looked in vain."""
        self.waited_s = 0.0
        """Seconds in which steps waited for transfers."""
        self._queue: deque[int] = deque()
        self._prompt: dict[int, int] = {}
        self._sent = env.event()

    def send(self, r: int, prompt_tokens: int) -> None:
        """Queue a request whose prompt is computed."""
        self._queue.append(r)
        self._prompt[r] = prompt_tokens
        self.queued_tokens += prompt_tokens
        if not self._sent.triggered:
            self._sent.succeed()

    def generate(
        self,
        next_prompt_s: Callable[[], float],
        fetch: Callable[["DecodeReplica", Taken], Process],
    ) -> Process:
        """Generate whatever is sent, without end: the SimPy process.

        Nothing is sent before ``next_prompt_s()``.
        """
        env, core = self._env, self.core
        last_s = INFINITE
        while True:
            self.held_tokens = core.held_tokens
            # up to the one in which the next prompt comes, if they take as long as the last one
            quiet = STEPS_PER_TIMEOUT
            if next_prompt_s() < INFINITE:
                quiet = min(quiet, max(1, ceil((next_prompt_s() - env.now) / last_s)))
            columns, taken = core.run_ahead(self._queue, STEPS_PER_TIMEOUT, quiet)
            step_s = self._price(columns) if columns.steps else np.zeros(0)
            at = 0
            for step, requests, held in taken:
                yield from self._pass(step_s[at:step])
                self.held_tokens = held
                self.queued_tokens -= sum(self._prompt.pop(r) for r, _ in requests)
                fetching = env.process(fetch(self, requests))
                yield from self._pass(step_s[step : step + 1])
                computed = env.now
                yield fetching
                self.waited_s += env.now - computed
                at = step + 1
            yield from self._pass(step_s[at:])
            if columns.steps:
                last_s = float(step_s[-1])
            elif not taken:
                self._sent = env.event()
                yield self._sent


def run_pools(
    env: simpy.Environment,
    workload: Workload,
    prefill: Sequence[PrefillReplica],
    decode: Sequence[DecodeReplica],
    link: KVLink,
    progress: Callable[[int, int], None] | None,
) -> Outcome:
    """Run all prompts on ``prefill`` and what follows them on ``decode``.

    A request goes to the decode replica with the fewest KV tokens, held and queued. The first
    output token is sampled with the prompt, so that a request of one ends there. ``progress`` is
    told (prompts done, all) and knows nothing of what follows the last prompt.
    """
    prompt = workload.prompt_tokens.tolist()
    output = workload.output_tokens.tolist()
    finish_s = np.full(len(workload), np.nan)
    held_by: dict[int, tuple[PrefillReplica, float]] = {}
    transfers: list[KVTransfer] = []

    def hand_on(sender: PrefillReplica, r: int) -> None:
        if progress is not None:
            progress(sum(replica.core.finished for replica in prefill), len(workload))
        if output[r] == 1:
            finish_s[r] = env.now
            sender.core.let_go(r)
            return
        held_by[r] = sender, env.now
        receiver = min(decode, key=lambda d: d.held_tokens + d.queued_tokens)
        receiver.send(r, prompt[r])

    def fetch(receiver: DecodeReplica, requests: Taken) -> Process:
        number = len(prefill) + decode.index(receiver)
        for r, tokens in requests:
            sender, prompt_s = held_by.pop(r)
            with sender.link.request() as turn:
                yield turn
                start_s = env.now
                yield env.timeout(link.seconds(tokens))
            sender.fetched(r)
            transfers.append(
                KVTransfer(r, prefill.index(sender), number, tokens, prompt_s, start_s, env.now)
            )

    def next_prompt_s() -> float:
        return min(replica.next_prompt_s for replica in prefill)

    for replica in prefill:
        env.process(replica.compute(hand_on))
    for receiver in decode:
        env.process(receiver.generate(next_prompt_s, fetch))
    env.run()

    for receiver in decode:
        mine = np.asarray(receiver.core.order, dtype=np.int64)
        finish_s[mine] = receiver.end_s[np.asarray(receiver.core.finish_step)[mine]]
    unfinished = int(np.isnan(finish_s).sum())
    if unfinished:
        raise SchedulingError(f"{unfinished} of {len(workload)} requests never finished")
    makespan_s = float(finish_s.max())
    return Outcome(
        makespan_s, finish_s, tuple(transfers), _notes(prefill, decode, transfers, makespan_s)
    )


def _notes(
    prefill: Sequence[PrefillReplica],
    decode: Sequence[DecodeReplica],
    transfers: Sequence[KVTransfer],
    makespan_s: float,
) -> tuple[str, ...]:
    """Return what each pool did with its time, as shares of the makespan."""

    def share(seconds: float, replicas: Sequence[Replica]) -> str:
        return f"{seconds / len(replicas) / makespan_s:.1%}"

    busy = [float(sum(r.step_s.sum() for r in pool)) for pool in (prefill, decode)]
    return (
        f"prefill replicas: {share(busy[0], prefill)} of the time busy, "
        f"{share(sum(r.stalled_s for r in prefill), prefill)} stalled for decode room",
        f"decode replicas: {share(busy[1], decode)} of the time busy, "
        f"{share(sum(r.waited_s for r in decode), decode)} waiting for KV; "
        f"links {share(sum(t.end_s - t.start_s for t in transfers), prefill)} busy, "
        f"{sum(t.tokens for t in transfers):,} tokens sent",
    )
