"""The exact minimum makespan of a tiny pool, by a search over all engine schedules.

The model is that of the engine (`bssim.sim.engine.core`) with token-level KV blocks, without prefix
sharing and preemption. In each step, every request with a computed prompt decodes one token, and
any prompt tokens of other requests are computed within the token budget, the sequence slots and the
KV cache. A schedule assigns prompt tokens to steps.

The search is A* over states: the computed tokens of each unfinished request, where equal requests
are interchangeable. The heuristic is the lower bound of `bssim.cost_models.bounds` on the remaining
time. It never overestimates, so the first finished state taken from the queue is optimal.
"""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache

from bssim.cost_models.step_cost import CostModel, OverlapModel, StepWork, attention_pairs
from bssim.cost_models.step_floors import StepFloors, StepLimits
from bssim.errors import InputError

Request = tuple[int, int, int]
"""Prompt tokens, tokens to compute (prompt + output - 1), tokens computed."""
State = tuple[Request, ...]
"""The unfinished requests, sorted."""


@dataclass(frozen=True, slots=True)
class ExactSchedule:
    """An optimal schedule."""

    makespan_s: float
    steps: tuple[int, ...]
    """Prompt tokens computed in each step, shape (steps,)."""


@dataclass(frozen=True)
class TinyEngine:
    """The limits of one replica, in vLLM's terms, and its cost model."""

    cost_model: CostModel
    overlap: OverlapModel
    kv_capacity_tokens: int
    max_num_batched_tokens: int
    max_num_seqs: int = 1 << 30
    batch_multiple: int = 1

    def steps(self, state: State) -> Iterator[tuple[State, StepWork]]:
        """Yield the next state and the work of every possible step."""
        decoding = [r for r in state if r[2] >= r[0]]
        prompts = [r for r in state if r[2] < r[0]]
        decodes = len(decoding)
        reads = sum(done for _, _, done in decoding)
        room = self.kv_capacity_tokens - decodes - sum(done for _, _, done in state)
        most = min(self.max_num_batched_tokens - decodes, room)
        if most < 0:
            return  # a decode has no room; only a preemption could continue
        grown = [(p, need, done + 1) for p, need, done in decoding]
        seen: set[tuple[State, int, int, float]] = set()
        for chunks in _chunks([p - done for p, _, done in prompts], most):
            tokens = sum(chunks)
            if not decodes and not tokens:
                continue
            after = [(p, n, x + c) for (p, n, x), c in zip(prompts, chunks, strict=True)]
            if decodes + sum(x > 0 for _, _, x in after) > self.max_num_seqs:
                continue
            next_state = tuple(sorted(r for r in grown + after if r[2] < r[1]))
            parts = [(x, c) for (_, _, x), c in zip(prompts, chunks, strict=True) if c]
            before = sum(x for x, _ in parts)
            pairs = sum(attention_pairs(c, x) for x, c in parts)
            key = (next_state, len(parts), before, pairs)
            if key in seen:
                continue
            seen.add(key)
            yield (
                next_state,
                StepWork(
                    decode_requests=float(decodes),
                    decode_context_tokens=float(reads),
                    prefill_requests=float(len(parts)),
                    prefill_tokens=float(tokens),
                    prefill_context_tokens=float(before),
                    prefill_attention_pairs=pairs,
                    sampled_tokens=float(decodes + sum(x >= p for p, _, x in after)),
                    padding_tokens=float(-(decodes + tokens) % self.batch_multiple),
                ),
            )


def _chunks(left: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
    """Yield all ways to compute up to ``most`` tokens of prompts with ``left`` remaining tokens."""
    if not left:
        yield ()
        return
    for tokens in range(min(left[0], most) + 1):
        for rest in _chunks(left[1:], most - tokens):
            yield (tokens, *rest)


def least_makespan(
    prompt_tokens: Sequence[int],
    output_tokens: Sequence[int],
    engine: TinyEngine,
    *,
    max_states: int = 1_000_000,
) -> ExactSchedule:
    """Return the minimum makespan of all schedules without preemptions.

    ``prompt_tokens`` and ``output_tokens``: shape (n,). Raises InputError for requests that do not
    fit the KV cache and for a pool that needs more than ``max_states`` states.
    """
    start: State = tuple(
        sorted((p, p + d - 1, 0) for p, d in zip(prompt_tokens, output_tokens, strict=True))
    )
    largest = max(need for _, need, _ in start)
    if largest > engine.kv_capacity_tokens:
        raise InputError(
            "exact",
            f"a request of {largest} tokens",
            f"at most the {engine.kv_capacity_tokens} of the KV cache",
        )
    seconds = _Seconds(engine)
    best = {start: 0.0}
    came: dict[State, tuple[State, int]] = {}
    order = itertools.count()
    queue = [(seconds.left(start), next(order), 0.0, start)]
    expanded = 0
    while queue:
        _, _, so_far, state = heapq.heappop(queue)
        if so_far > best[state]:
            continue  # a faster path was found meanwhile
        if not state:
            return ExactSchedule(so_far, _path(came))
        expanded += 1
        if expanded > max_states:
            raise InputError(
                "exact",
                f"{len(start)} requests that need more than {max_states} states",
                "fewer requests or shorter ones",
            )
        for next_state, work in engine.steps(state):
            then = so_far + seconds.step(work)
            if then < best.get(next_state, float("inf")):
                best[next_state] = then
                came[next_state] = (state, int(work.prefill_tokens))
                queue_at = then + seconds.left(next_state)
                heapq.heappush(queue, (queue_at, next(order), then, next_state))
    raise InputError("exact", "no schedule without preemptions", "a larger KV cache")


def _path(came: dict[State, tuple[State, int]]) -> tuple[int, ...]:
    """Return the prompt tokens of each step to the finished state."""
    tokens: list[int] = []
    state: State = ()
    while state in came:
        state, prefill = came[state]
        tokens.append(prefill)
    return tuple(reversed(tokens))


class _Seconds:
    """Cached prices of steps and lower bounds of states."""

    def __init__(self, engine: TinyEngine) -> None:
        self._engine = engine
        limits = StepLimits(
            engine.max_num_batched_tokens, engine.max_num_seqs, engine.batch_multiple
        )
        self._floors = StepFloors(engine.cost_model, limits)
        self._priced = cache(self._price)
        self.left = cache(self._left)

    def step(self, work: StepWork) -> float:
        """Return the seconds of a step."""
        return self._priced(*(float(getattr(work, f.name)) for f in fields(StepWork)))

    def _price(self, *sums: float) -> float:
        cost = self._engine.cost_model.step_cost(StepWork(*sums))
        return float(self._engine.overlap.step_seconds(cost))

    def _left(self, state: State) -> float:
        """Return a lower bound on the seconds from a state to the end."""
        if not state:
            return 0.0
        prefill = pairs = decodes = reads = 0.0
        steps = 0
        for p, need, done in state:
            first = max(p, done)
            prefill += max(p - done, 0)
            pairs += attention_pairs(max(p - done, 0), done)
            decodes += need - first
            reads += (need - first) * (need + first - 1) / 2
            steps = max(steps, need - first + (done < p))
        sampled = decodes + sum(done < p for p, _, done in state)
        work = StepWork(
            decode_requests=decodes,
            decode_context_tokens=reads,
            prefill_tokens=prefill,
            prefill_attention_pairs=pairs,
            sampled_tokens=sampled,
        )
        least = self._floors.least_cost(work, steps)
        return float(self._engine.overlap.step_seconds(least))
