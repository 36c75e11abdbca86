"""The engine of a decode replica: it generates from KV that it fetches instead of computing it."""

from collections import deque
from typing import NamedTuple

import numpy as np

from bssim.sim.cluster.fleet import Fleet
from bssim.sim.engine.core import EngineCore
from bssim.sim.engine.step_columns import StepColumns
from bssim.sim.schedulers.static_order import StaticOrder


class Fetch(NamedTuple):
    """A request whose prompt is asked for."""

    request: int
    tokens: int
    """Those of its prompt that are not cached here already."""


class TakeIn(NamedTuple):
    """The requests that a decode replica asks for during one of the steps that it runs ahead."""

    step: int
    """Counted from the first of these steps."""
    fetches: list[Fetch]
    held_tokens: int
    """KV tokens held from then on."""


class DecodeEngine:
    """Generates the tokens after the first.

    Blocks for a prompt are allocated when its KV is asked for, and the request decodes from the
    step after that one. A prefix that is cached here already is not fetched again. A preempted
    request is computed again here, prompt and outputs, before any other is taken in: vLLM's rule.
    """

    def __init__(self, fleet: Fleet) -> None:
        """The waiting list of its core holds preempted requests only."""
        nobody = StaticOrder(np.zeros(0, np.int64))
        self.core = EngineCore(
            fleet.columns,
            nobody,
            fleet.setup.engine,
            fleet.cache(),
            single_steps=fleet.single_steps,
            windowed=fleet.setup.windowed,
        )

    def run_ahead(
        self, queue: deque[int], max_steps: int, quiet_steps: int
    ) -> tuple[StepColumns, list[TakeIn]]:
        """Run the steps in which only those in ``queue`` can be taken in, first come first served.

        That is up to ``max_steps`` while others wait behind the one taken in, and ``quiet_steps``
        if nobody waits. Returns the steps, and who was taken in during them. If there is nothing
        to run beside a fetch, its step does not exist.
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
        """Allocate for those at the head of ``queue`` that fit."""
        fetches = []
        while queue:
            tokens = self.core.receive(queue[0])
            if tokens is None:
                break
            fetches.append(Fetch(queue.popleft(), tokens))
        return fetches
