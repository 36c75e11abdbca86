"""The number of prompt tokens that the left side of a dual scan computes in a step.

The engine pads the tokens of a step to a multiple of `batch_multiple`, and padding costs the same
as real tokens. Therefore the decodes and the prefills of both sides together fill whole multiples,
and the unused pace is carried over as credit.
"""

from collections.abc import Sequence

ARREARS_STEPS = 4
"""Unused pace is kept for at most this many steps."""


class StepFill:
    """The token budget of the left side, step by step."""

    def __init__(self, multiple: int, free_tokens: float) -> None:
        """``free_tokens``: tokens that a step can compute while it loads the weights."""
        self._multiple = max(multiple, 1)
        self._free_tokens = free_tokens
        self._credit = 0.0
        self._scheduled = 0
        self._whole = 0
        # The left request with an unfinished prompt, and its remaining tokens. A second one would
        # get the same budget again.
        self._open = -1
        self._open_tokens = 0

    def begin_step(self, pace: float, passed: int, decodes: int) -> None:
        """Add the pace of ``passed`` steps to the credit, and plan the new step."""
        m = self._multiple
        credit, most = self._credit + pace * passed, ARREARS_STEPS * pace
        if most < m:
            most = m
        self._credit = credit = credit if credit < most else most
        least = -(-decodes // m) * m if decodes else m  # padding costs the same as tokens
        wanted = decodes + credit
        if wanted < self._free_tokens:
            wanted = self._free_tokens
        whole = int(wanted / m) * m
        self._whole = whole if whole > least else least
        self._scheduled = decodes

    @property
    def left_tokens(self) -> int:
        """Prompt tokens that the left side may still compute in this step."""
        planned, padding = self._whole - self._scheduled, -self._scheduled % self._multiple
        return planned if planned > padding else padding

    @property
    def may_start(self) -> bool:
        """Whether the left side may start a prompt."""
        return self._open < 0 and self.left_tokens >= 1

    def allow_one(self) -> None:
        """Let an idle engine start a prompt regardless of the pace."""
        self._open = -1
        self._whole = max(self._whole, self._scheduled + 1)

    def started(self, request: int, tokens: int) -> None:
        """Note a left request with ``tokens`` prompt tokens left to compute."""
        self._open, self._open_tokens = request if tokens > 0 else -1, tokens

    def dropped(self, request: int) -> None:
        """Note that a request was preempted."""
        if request == self._open:
            self._open = -1

    def all_prefilled(self, tokens: Sequence[int], *, left: bool) -> None:
        """Note scheduled prompt tokens of each of several requests, none of which was open."""
        self._scheduled += sum(tokens)
        if left:
            for n in tokens:
                self._credit -= n
                if self._credit < -self._multiple:
                    self._credit = -float(self._multiple)

    def prefilled(self, request: int, tokens: int, *, left: bool) -> None:
        """Note scheduled prompt tokens."""
        self._scheduled += tokens
        if left:
            credit, least = self._credit - tokens, -float(self._multiple)
            self._credit = credit if credit > least else least
        if request == self._open:
            self._open_tokens -= tokens
            if self._open_tokens <= 0:
                self._open = -1
