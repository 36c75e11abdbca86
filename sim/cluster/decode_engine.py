"""The engine of a decode replica, which fetches the KV of prompts instead of computing it."""

from collections import deque
from typing import NamedTuple

from bssim.sim.engine import EngineCore, StepColumns


class Fetch(NamedTuple):
    """A request whose prompt KV is fetched."""

    request: int
    tokens: int
    """Prompt tokens that are not cached on this replica."""


class TakeIn(NamedTuple):
    """The requests that a decode replica fetches during one of the steps that it runs ahead."""

    step: int
    """Number of the step, counted from the first of these steps."""
    fetches: list[Fetch]
    held_tokens: int
    """KV tokens held from then on."""


class DecodeEngine:
    """Generates all tokens after the first one.

    Blocks for a prompt are allocated when its fetch starts, and the request decodes from the next
    step on. A prefix that is already cached here is not fetched again. As in vLLM, a preempted
    request is computed again here, prompt and outputs, before any other request is admitted.
    """

    def __init__(self, core: EngineCore) -> None:
        """The waiting list of ``core`` holds only preempted requests."""
        self.core = core

    def run_ahead(
        self, queue: deque[int], max_steps: int, quiet_steps: int
    ) -> tuple[StepColumns, list[TakeIn]]:
        """Run steps in which only requests in ``queue`` can be admitted, first come, first served.

        Runs up to ``max_steps`` steps while more requests wait, and ``quiet_steps`` if none waits.
        Returns the steps and the requests admitted in them. If nothing runs during a fetch, its
        step does not exist.
        """
        core = self.core
        out = StepColumns()
        taken: list[TakeIn] = []
        begin = core.step
        while True:
            core.join_received()
            fetches = self._take_in(queue)
            if fetches:
                taken.append(TakeIn(core.step - begin, fetches, core.held_tokens))
            if not core.unfinished:
                break
            if fetches:
                steps = 1
            elif queue:
                steps = core.steps_to_room
            else:
                steps = quiet_steps
            out.extend(core.advance(min(steps, begin + max_steps - core.step)))
            if not queue or core.step - begin >= max_steps:
                break
        return out, taken

    def _take_in(self, queue: deque[int]) -> list[Fetch]:
        """Allocate blocks for the requests at the head of ``queue`` that fit."""
        fetches = []
        while queue:
            tokens = self.core.receive(queue[0])
            if tokens is None:
                break
            fetches.append(Fetch(queue.popleft(), tokens))
        return fetches
