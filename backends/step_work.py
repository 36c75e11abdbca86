"""Convert what a step scheduled (rows of ``--steps``) into what it computed (StepWork)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bssim.cost_models.step_cost import StepWork, attention_pairs
from bssim.errors import InputError


class _Progress:
    """A running request: ``computed`` tokens are in the cache; ``goal`` were known at admission."""

    __slots__ = ("computed", "generated", "goal", "prompt")

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt
        self.computed = 0
        self.generated = 0
        self.goal = prompt

    def admit(self, cached: int) -> None:
        """Start from the cached tokens. The prompt and all generated tokens need prefill."""
        self.computed = cached
        self.goal = self.prompt + self.generated

    @property
    def to_prefill(self) -> int:
        """Tokens left to prefill, including those computed before a preemption."""
        return max(0, self.goal - (self.generated > 0) - self.computed)


class WorkMeter:
    """Converts the steps of one engine, in order, into the work of each.

    A request does prefill until its prompt is computed, however short the chunk. After a
    preemption it also prefills the tokens that it had generated, except the last one, which was
    never computed: that one is a decode, as it would be without the preemption.
    """

    def __init__(self, prompt_tokens: Mapping[Any, int]) -> None:
        self._prompt_tokens = prompt_tokens
        self._running: dict[Any, _Progress] = {}

    def restart(self) -> None:
        """Continue with another or a restarted engine, on which no request runs."""
        self._running.clear()

    def generated(self) -> dict[Any, int]:
        """Return the tokens that each request has generated, if it was admitted and runs on."""
        return {name: request.generated for name, request in self._running.items()}

    def sums(self, row: Mapping[str, Any]) -> list[int]:
        """Return decode requests, decode context, chunks, prefill tokens, prefill context,
        pairs and sampled tokens of a step, a row as ``--steps`` writes it."""
        running = self._running
        for name, cached in row["cached"].items():
            running.setdefault(name, _Progress(self._prompt_tokens[name])).admit(cached)
        sums = [0] * 7
        for name, tokens in row["scheduled"].items():
            request = running[name]
            before = request.computed
            chunk = min(tokens, request.to_prefill)
            request.computed += tokens
            if chunk:
                sums[2] += 1
                sums[3] += chunk
                sums[4] += before
                sums[5] += attention_pairs(chunk, before)
            if tokens > chunk:
                sums[0] += 1
                sums[1] += before + chunk
            if request.computed >= request.goal:
                sums[6] += 1
                request.generated += 1
        for name in row["finished"]:
            running.pop(name, None)
        return sums


def step_work(rows: Sequence[dict[str, Any]], prompt_tokens: Mapping[str, int]) -> StepWork:
    """Return the work of each row, fields of shape (rows,). ``prompt_tokens``: by request id.

    No request continues across a change of ``replica`` or ``segment``.
    """
    meter = WorkMeter(prompt_tokens)
    sums = []
    part: tuple[Any, ...] | None = None
    for number, row in enumerate(rows):
        if part != (part := (row.get("replica"), row.get("segment"))):
            meter.restart()
        try:
            sums.append(meter.sums(row))
        except KeyError as error:
            raise InputError(
                f"step {number} of the replay", f"request {error}", "one that was admitted before"
            ) from error
    return summed_work(sums)


def summed_work(sums: Sequence[Sequence[int]]) -> StepWork:
    """Return the sums of `WorkMeter.sums`, one list per step, as fields of shape (steps,)."""
    work = np.array(sums, dtype=np.float64).reshape(-1, 7).T
    return StepWork(
        decode_requests=work[0],
        decode_context_tokens=work[1],
        prefill_requests=work[2],
        prefill_tokens=work[3],
        prefill_context_tokens=work[4],
        prefill_attention_pairs=work[5],
        sampled_tokens=work[6],
    )
