"""What the replicas of a run share, and how a replica is made."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from bssim.sim.cluster.replica import Replica
from bssim.sim.engine import (
    AdmissionPolicy,
    EngineCore,
    KVCache,
    RequestColumns,
    StepRow,
    cache_maker,
)
from bssim.sim.setup import Setup

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (finished requests, all requests)."""


@dataclass(frozen=True, eq=False)
class Fleet:
    """A setup, and what a run should record."""

    setup: Setup
    record_timeline: bool = False
    exact_kv: bool = True
    """Whether a timeline has the KV tokens of every step; else those of steps in which no request
    joins or ends are interpolated, which is faster for blocks of several tokens."""
    progress: Progress | None = None

    @property
    def single_steps(self) -> bool:
        """Whether each step needs its own record. A run of steps does not record whole blocks."""
        return self.record_timeline and self.exact_kv and self.setup.engine.block_size > 1

    @cached_property
    def columns(self) -> RequestColumns:
        """The requests, for engines that run them from start to end."""
        return RequestColumns(self.setup.workload)

    @cached_property
    def cache(self) -> Callable[[], KVCache]:
        """A function that makes an empty cache."""
        return cache_maker(self.setup.workload, self.setup.engine, self.setup.blocks)

    def replica(
        self,
        policy: AdmissionPolicy,
        *,
        columns: RequestColumns | None = None,
        promised_blocks: list[int] | None = None,
        on_step: Callable[[StepRow], None] | None = None,
        keeps_finished: bool = False,
    ) -> Replica:
        """Return a replica with an empty cache that admits requests as ``policy`` says.

        ``columns``: the requests, if they do not run from start to end. The other options are
        those of `EngineCore`.
        """
        setup = self.setup
        core = EngineCore(
            self.columns if columns is None else columns,
            policy,
            setup.engine,
            self.cache(),
            promised_blocks=promised_blocks,
            on_step=on_step,
            single_steps=self.single_steps,
            keeps_finished=keeps_finished,
            windowed=setup.windowed,
        )
        return Replica(
            core,
            setup.cost_model,
            setup.overlap,
            setup.engine.batch_multiple,
            keep_timeline=self.record_timeline,
        )
