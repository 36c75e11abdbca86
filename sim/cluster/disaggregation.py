"""The user's settings of prefill/decode disaggregation: replicas of each kind, and the link."""

import re
from dataclasses import dataclass
from typing import Self

from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec, Shard
from bssim.errors import InputError
from bssim.sim.engine import EngineConfig
from bssim.sim.schedulers import Scheduler, fixed_order_names


@dataclass(frozen=True, slots=True)
class Disaggregation:
    """The numbers of prefill replicas and decode replicas, written as ``1P2D``."""

    prefill: int
    decode: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the split in ``text``. Raises InputError unless it is ``xPyD`` with x, y >= 1."""
        found = re.fullmatch(r"([1-9]\d{0,3})P([1-9]\d{0,3})D", text)
        if not found:
            raise InputError(
                "disaggregation",
                repr(text),
                "xPyD, for example 1P2D: one replica that only prefills and two that only decode",
            )
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def checked(
        cls,
        text: str | None,
        scheduler: str | Scheduler,
        engine: EngineConfig,
        *,
        dp: int = 1,
        steps: bool = False,
    ) -> Self | None:
        """Return the split in ``text``, to run with these settings; None without a text.

        Raises InputError as `parse` does, and for settings that do not work with disaggregation.
        """
        if text is None:
            return None
        split = cls.parse(text)
        beside = f"with disaggregation {split}"
        if dp != 1:
            raise InputError(
                "dp", f"{dp} {beside}", "1, because the split gives the number of replicas"
            )
        if isinstance(scheduler, str) and scheduler not in fixed_order_names():
            raise InputError(
                "scheduler",
                f"{scheduler!r} {beside}",
                f"a fixed order, one of: {', '.join(fixed_order_names())}",
            )
        if engine.admission != "optimistic":
            raise InputError("engine.admission", f"{engine.admission!r} {beside}", "'optimistic'")
        if engine.async_scheduling:
            raise InputError("engine.async_scheduling", f"true {beside}", "false")
        if steps:
            raise InputError("--steps", beside, "colocated replicas")
        return split

    @property
    def replicas(self) -> int:
        """Replicas of both kinds."""
        return self.prefill + self.decode

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return f"{self.prefill}P{self.decode}D"


@dataclass(frozen=True, slots=True)
class KVLink:
    """The transfer time of KV between two replicas."""

    token_s: float
    latency_s: float

    @classmethod
    def of(cls, llm: LLMSpec, hardware: HardwareSpec, tp: int) -> Self:
        """Return the link of a hardware spec at peak rate. Every GPU sends its own shard of the KV.

        ``link_bandwidth`` is the bandwidth between GPUs of one node (NVLink, PCIe), which is the
        best case. Use a profile with a lower bandwidth to model a network.
        """
        shard = llm.kv_bytes_per_token / Shard(llm, tp).kv_shards
        return cls(shard / hardware.link_bandwidth, hardware.link_latency_s)

    def seconds(self, tokens: int) -> float:
        """Return the seconds of one transfer."""
        return self.latency_s + tokens * self.token_s
