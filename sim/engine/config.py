"""The engine settings, in vLLM's terms, and their presets."""

from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from bssim.cost_models.engine_costs import EngineCosts, load_engine_costs
from bssim.cost_models.step_floors import StepLimits
from bssim.errors import InputError, unknown_name


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How an engine schedules and caches. ``--set engine.FIELD=VALUE`` sets any field.

    Raises InputError for a value out of range.
    """

    name: str = "nanoflow"
    """The preset on which the other fields are based; the ``engine`` column."""
    block_size: int = 1
    """Tokens per KV block; 1 is a radix cache, which matches single tokens."""
    num_gpu_blocks: int | None = None
    """KV blocks, including vLLM's null block; None: as many as fit next to the weights."""
    max_num_batched_tokens: int = 2048
    """Most tokens per step."""
    max_num_seqs: int = 1024
    """Most requests running at once."""
    max_model_len: int | None = None
    """Longest prompt + output; None: only the KV cache limits it."""
    batch_multiple: int = 1
    """A step's dense batch is padded to a multiple of this (128 for nanoflow)."""
    admission: Literal["optimistic", "reserve"] = "optimistic"
    """``optimistic``: admit on the prompt, preempt and recompute later; ``reserve``: admit only
    when prompt and estimated output fit beside all reservations."""
    enable_prefix_caching: bool = True
    """Look prompts up in the KV cache at admission."""
    prefix_retention: Literal["lru", "none"] = "lru"
    """``none``: only the prefixes of running requests stay."""
    enable_chunked_prefill: bool = True
    """False: a prompt larger than the remaining budget waits for another step."""
    long_prefill_token_threshold: int = 0
    """Most prompt tokens of one request in one step; 0: no limit."""
    policy: Literal["fcfs", "priority"] = "fcfs"
    """Order of vLLM's own waiting queue."""
    async_scheduling: bool = False
    """Step k+1 is scheduled before the output of step k is applied."""
    enforce_eager: bool = False
    """No CUDA graphs: the CPU launches every kernel of every step."""
    pipeline_parallel_size: int = 1
    """Stages of the pipeline of each replica; a simulated step is one round of its micro-batches,
    which share `max_num_batched_tokens`."""
    enable_expert_parallel: bool = False
    """Each GPU of a replica holds whole experts instead of a part of every expert."""
    disable_custom_all_reduce: bool = False
    """Use NCCL for all all-reduces, and never vLLM's own kernels."""
    version: str = "none"
    """Source of host time and kernels: a file of cost_models/specs/engines, or your FILE.yaml."""
    watermark: float = 0.0
    """Share of blocks kept free at admission."""
    overlap: str = "frontier"
    """``sequential``, ``perfect``, ``frontier``, ``gamma:G`` or ``pnorm:P``."""
    kv_reserve: float = 0.1
    """Share of GPU memory for activations and runtime (1 - vLLM's gpu_memory_utilization)."""
    kv_free_share: float = 1.0
    """Share of the memory left after weights and ``kv_reserve`` for KV blocks. vLLM uses all of
    it; in TensorRT-LLM this is kv_cache_free_gpu_mem_fraction."""

    def __post_init__(self) -> None:
        for field, least in _LEAST.items():
            value = getattr(self, field)
            if value is not None and value < least:
                raise InputError(f"engine.{field}", value, f"at least {least}")
        for field in ("watermark", "kv_reserve"):
            if not 0.0 <= getattr(self, field) < 1.0:
                raise InputError(f"engine.{field}", getattr(self, field), "a share in [0, 1)")
        if not 0.0 < self.kv_free_share <= 1.0:
            raise InputError("engine.kv_free_share", self.kv_free_share, "a share in (0, 1]")
        if self.max_num_seqs > self.max_num_batched_tokens:
            raise InputError(
                "engine.max_num_seqs",
                f"{self.max_num_seqs} with max_num_batched_tokens {self.max_num_batched_tokens}",
                (
                    "max_num_seqs <= max_num_batched_tokens, because every running request may "
                    "decode in one step"
                ),
            )

    def costs(self) -> EngineCosts:
        """Return the engine's own costs. Raises InputError for an unknown ``version``."""
        return load_engine_costs(
            self.version,
            async_scheduling=self.async_scheduling,
            enforce_eager=self.enforce_eager,
            disable_custom_all_reduce=self.disable_custom_all_reduce,
            enable_expert_parallel=self.enable_expert_parallel,
            pipeline_parallel_size=self.pipeline_parallel_size,
        )

    @property
    def waits_unlike_vllm(self) -> bool:
        """Whether vLLM on CUDA would schedule asynchronously where this engine does not.

        That is vLLM's default since 0.14 (pull request 27614), except with pipeline stages
        (vllm/config/vllm.py in 0.32).
        """
        synchronous = not self.async_scheduling and self.pipeline_parallel_size == 1
        return synchronous and self.version.startswith("vllm")

    def step_limits(self) -> StepLimits:
        """Return the limits of a step, for lower bounds."""
        return StepLimits(
            max_num_batched_tokens=self.max_num_batched_tokens,
            max_num_seqs=self.max_num_seqs,
            batch_multiple=self.batch_multiple,
            micro_batches=self.pipeline_parallel_size,
        )

    def with_settings(self, settings: dict[str, Any], where: str = "engine") -> "EngineConfig":
        """Return a copy with some fields set; values may be strings, as from the command line.

        Raises InputError naming ``where.field`` for an unknown field or a value of another type.
        """
        hints = get_type_hints(EngineConfig)
        known = [f.name for f in fields(EngineConfig) if f.name != "name"]
        values = {}
        for key, value in settings.items():
            if key not in known:
                raise unknown_name(f"{where}.{key}", key, known)
            values[key] = _typed(f"{where}.{key}", value, hints[key])
        return replace(self, **values)


_LEAST = {
    "block_size": 1,
    "pipeline_parallel_size": 1,
    "num_gpu_blocks": 2,
    "max_num_batched_tokens": 1,
    "max_num_seqs": 1,
    "max_model_len": 2,
    "batch_multiple": 1,
    "long_prefill_token_threshold": 0,
}


def _typed(where: str, value: Any, hint: Any) -> Any:
    """Check or convert one value against a field's annotation."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise unknown_name(where, value, get_args(hint))
        return value
    if type(None) in get_args(hint):
        if value is None or value in ("none", "null", ""):
            return None
        hint = next(a for a in get_args(hint) if a is not type(None))
    if hint is bool:
        words = {"true": True, "false": False, "on": True, "off": False, "1": True, "0": False}
        if isinstance(value, bool):
            return value
        if str(value).lower() in words:
            return words[str(value).lower()]
        raise InputError(where, repr(value), "true or false")
    try:
        if hint is int and (isinstance(value, bool) or float(value) != int(float(value))):
            raise ValueError
        return int(float(value)) if hint is int else hint(value)
    except (TypeError, ValueError, OverflowError):
        kind = {int: "an integer", float: "a number", str: "text"}[hint]
        raise InputError(where, repr(value), kind) from None


@cache
def _presets() -> dict[str, EngineConfig]:
    out = {}
    for entry in sorted(
        files("bssim.sim.engine").joinpath("presets").iterdir(), key=lambda e: e.name
    ):
        if entry.name.endswith(".yaml"):
            name = entry.name.removesuffix(".yaml")
            settings = yaml.safe_load(entry.read_text(encoding="utf-8"))
            out[name] = EngineConfig(name=name).with_settings(settings, where=entry.name)
    return out


def preset_names() -> list[str]:
    """Return the engine presets that ship with bssim."""
    return list(_presets())


def load_preset(name: str) -> EngineConfig:
    """Return an engine preset: ``vllm``, ``sglang``, ``trtllm`` or ``nanoflow``."""
    if name not in _presets():
        raise unknown_name("engine", name, _presets())
    return _presets()[name]
