"""The engines of prefill/decode disaggregation: one that only prefills, one that only decodes.

Both are the ordinary `EngineCore`. What differs is the end of a prompt: a prefill engine keeps its
KV until somebody has fetched it, and a decode engine starts with KV that it did not compute.
"""

from collections import deque
from dataclasses import replace

import numpy as np

from bssim.sim.engine.config import EngineConfig
from bssim.sim.engine.core import EngineCore
from bssim.sim.engine.kv_cache import KVCache
from bssim.sim.engine.step_columns import StepColumns
from bssim.sim.schedulers.interface import AdmissionPolicy
from bssim.sim.schedulers.static_order import StaticOrder
from bssim.sim.workload.workload import Workload


class PrefillEngine(EngineCore):
    """Computes prompts and samples their first tokens; `let_go` frees what has been fetched.

    KV that waits to be fetched is what bounds it: when no prompt fits beside it, `advance` does
    nothing.
    """

    def __init__(
        self, workload: Workload, policy: AdmissionPolicy, config: EngineConfig, cache: KVCache
    ) -> None:
        """See `EngineCore`; output lengths do not matter here."""
        one_token = np.ones_like(workload.output_tokens)
        super().__init__(replace(workload, output_tokens=one_token), policy, config, cache)
        self._fed = True
        self._done: list[int] = []

    def _release(self, done: list[int]) -> None:
        """Take prompts off the running list but keep their KV."""
        for r in done:
            del self._running[r]
            self._policy.finished(r)
        self.finished += len(done)
        self._done += done

    def take_done(self) -> list[int]:
        """Return the prompts finished since the last call, in running order."""
        done, self._done = self._done, []
        return done

    def let_go(self, r: int) -> None:
        """Free the KV of a finished prompt; its prefix stays cached as the engine is set."""
        self._cache.release(r, self._need[r], True)


Taken = list[tuple[int, int]]
"""Requests with the prompt tokens whose KV has to be fetched for them."""


class DecodeEngine(EngineCore):
    """Generates the tokens after the first from KV that is fetched, not computed.

    Blocks for a prompt are allocated when its KV is asked for, and the request decodes from the
    step after that one. A prefix that is cached here already is not fetched again. A preempted
    request is computed again here, prompt and outputs, before any other is taken in: vLLM's rule.
    """

    def __init__(
        self, workload: Workload, config: EngineConfig, cache: KVCache, single_steps: bool
    ) -> None:
        """See `EngineCore`: its waiting list holds preempted requests only."""
        nobody = StaticOrder(np.zeros(0, np.int64))
        super().__init__(workload, nobody, config, cache, single_steps=single_steps)
        self._incoming: Taken = []

    @property
    def held_tokens(self) -> int:
        """KV tokens held, in whole blocks."""
        return (self._cache.capacity - self._cache.free) * self._cache.block_size

    def run_ahead(
        self, queue: deque[int], max_steps: int, quiet_steps: int
    ) -> tuple[StepColumns, list[tuple[int, Taken, int]]]:
        """Run the steps in which only those in ``queue`` can be taken in, first come first served.

        That is up to ``max_steps`` while others wait behind the one taken in, and ``quiet_steps``
        if nobody waits. Returns the steps, and (step, who was taken in, KV tokens held from then
        on) for each step during which KV is fetched. If there is nothing to run beside, that step
        does not exist.
        """
        out = StepColumns()
        taken: list[tuple[int, Taken, int]] = []
        begin = self.step
        while True:
            self._join()
            self._take_in(queue)
            if self._incoming:
                taken.append((self.step - begin, self._incoming, self.held_tokens))
            if not self.unfinished:
                break
            if self._incoming:
                steps = 1
            elif queue:
                steps = self._steps_to_room()
            else:
                steps = quiet_steps
            out.extend(self.advance(min(steps, begin + max_steps - self.step)))
            if not queue or self.step - begin >= max_steps:
                break
        return out, taken

    def _join(self) -> None:
        """Start to decode what was taken in at the step before."""
        for r, _ in self._incoming:
            self._running[r] = None
            self._sequence[r] = self._admissions
            self._admissions += 1
            self.order.append(r)
            self._decoding.enter(r, self._prompt[r], self.step)
        self._incoming = []

    def _take_in(self, queue: deque[int]) -> None:
        """Allocate for those at the head of ``queue`` that fit, once the running have grown."""
        if self._policy.num_waiting or self._prefilling:
            return
        cache = self._cache
        size = cache.block_size
        kept = self._decoding.phase[self.step % size]
        if self._running:
            kept += self._watermark
        room = self._config.max_num_seqs - len(self._running)
        while queue and room > 0:
            r = queue[0]
            prompt = self._prompt[r]
            hit, unheld = cache.match(r, prompt + 1)
            # as at any admission, with room for the token that is computed next
            if -(-(prompt + 1) // size) - hit // size + unheld + kept > cache.free:
                break
            cache.admit(r, hit, prompt)
            self._incoming.append((r, prompt - hit))
            queue.popleft()
            room -= 1

    def _steps_to_room(self) -> int:
        """Return steps until the next finish, the only event that makes room."""
        if self._policy.num_waiting or self._prefilling:
            return 1
        return self._decoding.next_end() - self.step + 1
