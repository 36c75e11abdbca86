"""Prefill/decode disaggregation (DistServe, OSDI '24) as SimPy processes: two pools and links.

A prefill replica computes prompts and samples first tokens. The KV then stays in its memory until
the assigned decode replica has room and fetches it. Each replica takes part in only one transfer
per direction at a time. Transfers overlap with compute, but the next step of a decode replica waits
for the transfers that it started in this step. A prefill replica without room for another prompt
stalls, which provides back-pressure.

A decode replica runs its engine ahead of the clock. Its steps depend only on its queue; only their
durations (all priced in one call) and transfers need the clock. With an empty queue it runs up to
the step in which the next prompt can arrive, assuming the length of its last step. It may therefore
see a request a step late, but never early.
"""

from collections import deque
from collections.abc import Callable, Sequence
from math import ceil

import numpy as np
import simpy

from bssim.sim.cluster.decode_engine import DecodeEngine, Fetch
from bssim.sim.cluster.disaggregation import KVLink
from bssim.sim.cluster.replica import STEPS_PER_TIMEOUT, Process, Replica
from bssim.sim.engine import SchedulingError
from bssim.sim.result import KVTransfer, Outcome
from bssim.sim.workload import Workload

INFINITE = float("inf")


class PrefillProcess:
    """Runs single steps, because every prompt is sent on when its step ends."""

    def __init__(self, env: simpy.Environment, replica: Replica) -> None:
        """The core of ``replica`` keeps the KV of finished requests."""
        self.replica = replica
        self.link = simpy.Resource(env)
        """Held by the current outgoing transfer."""
        self.next_prompt_s = 0.0
        """No prompt is sent on before this time; infinite after the last one."""
        self.stalled_s = 0.0
        """Seconds without room for another prompt."""
        self._env = env
        self._room = env.event()

    def compute(self, hand_on: Callable[["PrefillProcess", int], None]) -> Process:
        """Compute all prompts: the SimPy process."""
        env, replica, core = self._env, self.replica, self.replica.core
        while core.unfinished:
            columns = core.advance(1)
            if columns.steps:
                step_s = replica.price(columns)
                self.next_prompt_s = env.now + float(step_s.sum())
                yield from replica.live(env, step_s)
                for r in core.take_kept():
                    hand_on(self, r)
            else:
                stalled = env.now
                self._room = env.event()
                yield self._room
                self.stalled_s += env.now - stalled
        self.next_prompt_s = INFINITE

    def fetched(self, r: int) -> None:
        """Free the KV of a prompt, and continue if the replica was stalled."""
        self.replica.core.free_kept(r)
        if not self._room.triggered:
            self._room.succeed()


class DecodeProcess:
    """Runs ahead as far as its queue allows, then advances the clock through those steps."""

    def __init__(self, env: simpy.Environment, engine: DecodeEngine, replica: Replica) -> None:
        """``replica`` records the costs of the core of ``engine``."""
        self.replica = replica
        self.queued_tokens = 0
        """Prompt tokens of the requests that wait here for their fetch."""
        self.held_tokens = 0
        """KV tokens held when it last tried to admit a request."""
        self.waited_s = 0.0
        """Seconds in which steps waited for transfers."""
        self._env = env
        self._engine = engine
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
        fetch: Callable[["DecodeProcess", list[Fetch]], Process],
    ) -> Process:
        """Serve all requests that arrive, in an endless loop: the SimPy process.

        No request arrives before ``next_prompt_s()``.
        """
        env, replica = self._env, self.replica
        last_s = INFINITE
        while True:
            self.held_tokens = replica.core.held_tokens
            # up to the arrival of the next prompt, if steps take as long as the last one
            quiet = STEPS_PER_TIMEOUT
            if next_prompt_s() < INFINITE:
                quiet = min(quiet, max(1, ceil((next_prompt_s() - env.now) / last_s)))
            columns, taken = self._engine.run_ahead(self._queue, STEPS_PER_TIMEOUT, quiet)
            step_s = replica.price(columns) if columns.steps else np.zeros(0)
            at = 0
            for step, fetches, held in taken:
                yield from replica.live(env, step_s[at:step])
                self.held_tokens = held
                self.queued_tokens -= sum(self._prompt.pop(r) for r, _ in fetches)
                fetching = env.process(fetch(self, fetches))
                yield from replica.live(env, step_s[step : step + 1])
                computed = env.now
                yield fetching
                self.waited_s += env.now - computed
                at = step + 1
            yield from replica.live(env, step_s[at:])
            if columns.steps:
                last_s = float(step_s[-1]) or last_s  # a step that only preempts takes no time
            elif not taken:
                self._sent = env.event()
                yield self._sent


def run_pools(
    env: simpy.Environment,
    workload: Workload,
    prefill: Sequence[PrefillProcess],
    decode: Sequence[DecodeProcess],
    link: KVLink,
    progress: Callable[[int, int], None] | None,
) -> Outcome:
    """Run all prompts on ``prefill`` and all later tokens on ``decode``.

    A request goes to the decode replica with the fewest KV tokens, held and queued. The first
    output token is sampled with the prompt, so a request with one output token ends there.
    ``progress`` is called with (finished prompts, all prompts), and not after the last prompt.
    """
    prompt = workload.prompt_tokens.tolist()
    output = workload.output_tokens.tolist()
    finish_s = np.full(len(workload), np.nan)
    held_by: dict[int, tuple[PrefillProcess, float]] = {}
    transfers: list[KVTransfer] = []

    def hand_on(sender: PrefillProcess, r: int) -> None:
        if progress is not None:
            progress(sum(p.replica.core.finished for p in prefill), len(workload))
        if output[r] == 1:
            finish_s[r] = env.now
            sender.replica.core.free_kept(r)
            return
        held_by[r] = sender, env.now
        receiver = min(decode, key=lambda d: d.held_tokens + d.queued_tokens)
        receiver.send(r, prompt[r])

    def fetch(receiver: DecodeProcess, fetches: list[Fetch]) -> Process:
        number = len(prefill) + decode.index(receiver)
        for r, tokens in fetches:
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
        return min(sender.next_prompt_s for sender in prefill)

    for sender in prefill:
        env.process(sender.compute(hand_on))
    for receiver in decode:
        env.process(receiver.generate(next_prompt_s, fetch))
    env.run()

    for receiver in decode:
        core = receiver.replica.core
        finish_s[core.completed] = receiver.replica.end_s[core.finish_step]
    unfinished = int(np.isnan(finish_s).sum())
    if unfinished:
        raise SchedulingError(f"{unfinished} of {len(workload)} requests never finished")
    makespan_s = float(finish_s.max())
    notes = _notes(prefill, decode, transfers, makespan_s)
    return Outcome(makespan_s, finish_s, tuple(transfers), len(prefill), notes)


def _notes(
    prefill: Sequence[PrefillProcess],
    decode: Sequence[DecodeProcess],
    transfers: Sequence[KVTransfer],
    makespan_s: float,
) -> tuple[str, ...]:
    """Return how each pool spent its time, as shares of the makespan."""

    def share(seconds: float, pool: Sequence[PrefillProcess] | Sequence[DecodeProcess]) -> str:
        return f"{seconds / len(pool) / makespan_s if makespan_s else 0.0:.1%}"

    busy = [
        float(sum(replica.step_s.sum() for replica in replicas))
        for replicas in ([p.replica for p in prefill], [d.replica for d in decode])
    ]
    return (
        f"prefill replicas: {share(busy[0], prefill)} of the time busy, "
        f"{share(sum(r.stalled_s for r in prefill), prefill)} stalled for decode room",
        f"decode replicas: {share(busy[1], decode)} of the time busy, "
        f"{share(sum(r.waited_s for r in decode), decode)} waiting for KV; "
        f"links {share(sum(t.end_s - t.start_s for t in transfers), prefill)} busy, "
        f"{sum(t.tokens for t in transfers):,} tokens sent",
    )
