"""What the engine asks of a scheduler's policy while it runs, and what a policy may ask back.

The engine controls budgets, memory and preemption. The policy decides only which request is next
and, optionally, how many prompt tokens a step may compute.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

UNLIMITED = 1 << 60
"""The value of a token limit that means no limit."""
OFFERED = 32
"""A policy that can offer several requests at once need not offer more than this."""


class EngineView(Protocol):
    """What a policy may read from the engine. Valid when `AdmissionPolicy.begin_step` is called."""

    step: int
    """Steps scheduled so far."""

    @property
    def decodes(self) -> int:
        """Requests that decode in this step."""

    @property
    def decode_context_tokens(self) -> int:
        """KV tokens they read."""

    def cached_prefix_tokens(self, request: int) -> int:
        """Prompt tokens of the request that are in the cache now."""

    def generated_tokens(self, request: int) -> int:
        """Tokens that a running or preempted request has generated so far."""


class AdmissionPolicy(ABC):
    """Decides at run time which waiting request is admitted next. Each replica has its own policy.

    A policy must name the next request (`peek`) and keep track when a request stops waiting
    (`admitted`) or waits again (`preempted`). All other methods have defaults. Those of `offer`,
    `all_admitted` and `all_finished` call the methods for one request; a policy overrides them
    only for speed, and a subclass that changes how one request is handled must change them too.
    """

    num_waiting: int
    """Requests that are not running: never admitted, or preempted."""
    paced: ClassVar[bool] = False
    """Whether `token_limit` can limit a prefill. If not, the engine does not call it."""
    waits_for_finish: ClassVar[bool] = False
    """Whether only a finished request can change the answer after the policy offers nothing or is
    blocked. The engine may then advance many steps at once."""

    @property
    def wake_step(self) -> int:
        """The step for which `begin_step` must be called even if nothing can be admitted.

        `UNLIMITED` means no such step. The engine may skip `begin_step` for other steps in which
        nothing can be admitted.
        """
        return UNLIMITED

    def begin_step(self, engine: EngineView) -> None:  # noqa: B027 -- a default, like those below
        """Start a step; the engine has not scheduled anything yet."""

    @abstractmethod
    def peek(self) -> int:
        """Return the request to admit next, or -1 to admit nothing more in this step."""

    def token_limit(self, request: int) -> int:
        """Return how many prompt tokens the request may compute now (0: not in this step)."""
        return UNLIMITED

    def offer(self) -> tuple[Sequence[int], int]:
        """Return the requests to admit next, in order, and the prompt tokens they may share.

        These are the requests that `peek` would return one after another if each computed its
        whole prompt. None: admit nothing more in this step. The engine admits as many of them as
        fit, tells `all_admitted`, and asks again. At the first one with a prompt left to compute,
        or when the tokens are used up, it does not look at the others.
        """
        r = self.peek()
        if r < 0:
            return (), 0
        return (r,), self.token_limit(r) if self.paced else UNLIMITED

    def blocked(self, request: int) -> bool:
        """Note that `request` from `peek` does not fit. Return True to offer another one."""
        return False

    @abstractmethod
    def admitted(self, request: int, cached_tokens: int) -> None:
        """Note that `request` was admitted and no longer waits."""

    def all_admitted(
        self, requests: Sequence[int], cached_tokens: Sequence[int], tokens: Sequence[int]
    ) -> None:
        """Note that the first of the offered requests were admitted, by default one by one.

        ``tokens``: the prompt tokens of each that this step computes, as for `prefilled`.
        """
        for r, cached, computed in zip(requests, cached_tokens, tokens, strict=True):
            self.admitted(r, cached)
            if self.paced:
                self.prefilled(r, computed)

    def prefilled(self, request: int, tokens: int) -> None:  # noqa: B027
        """Note that a chunk of `tokens` prompt tokens was scheduled (only if `paced`)."""

    def finished(self, request: int) -> None:  # noqa: B027
        """Note that a running request has its last token."""

    def all_finished(self, requests: Sequence[int]) -> None:
        """Note the requests that finished in a step: by default one by one."""
        for r in requests:
            self.finished(r)

    @abstractmethod
    def preempted(self, request: int) -> None:
        """Take back a running request; it waits again."""

    def notes(self) -> tuple[str, ...]:
        """Return notes to report after the run."""
        return ()
