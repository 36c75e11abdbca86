"""The YAML of a validation: which engine, which schedulers, which pools."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from bssim.errors import InputError, unknown_name
from bssim.sim.engine_config import EngineConfig, load_preset
from bssim.sim.schedulers.registry import scheduler_names
from bssim.sim.workload.combine import concatenate, shuffle
from bssim.sim.workload.prefix_tree import PrefixTree
from bssim.sim.workload.workload import Workload, make_workload


@dataclass(frozen=True, slots=True)
class PoolSource:
    """A kind of request: lengths are uniform between two bounds, both included."""

    name: str
    requests: int
    tail_tokens: tuple[int, int]
    """Prompt tokens that belong to one request alone."""
    output_tokens: tuple[int, int]
    groups: int = 1
    prefix_tokens: int = 0
    """Prompt tokens that all requests of a group share."""

    def draw(self, rng: np.random.Generator) -> Workload:
        """Return ``requests`` requests, their groups taking turns."""
        tree, node = None, None
        if self.prefix_tokens:
            tree = PrefixTree(
                np.array([-1] + [0] * self.groups, dtype=np.int32),
                np.array([0] + [self.prefix_tokens] * self.groups, dtype=np.int64),
            )
            node = 1 + np.arange(self.requests) % self.groups
        tail = rng.integers(*self.tail_tokens, size=self.requests, endpoint=True)
        output = rng.integers(*self.output_tokens, size=self.requests, endpoint=True)
        return make_workload(self.name, tail + self.prefix_tokens, output, tree=tree, node=node)


@dataclass(frozen=True)
class ValidationConfig:
    """See ``configs/validate/cpu.yaml``."""

    name: str
    model: Path
    engine: EngineConfig
    schedulers: tuple[str, ...]
    sources: tuple[PoolSource, ...]
    run_time_schedulers: tuple[str, ...] = ()
    """Schedulers whose policy also admits at run time, inside the engine."""
    seed: int = 0
    calibration_seeds: tuple[int, ...] = (1, 2)
    calibration_schedulers: tuple[str, ...] = ("random", "dfs")
    output_lengths: str = "oracle"
    hardware: str = "cpu"
    """What the schedulers take the machine for before anything is fitted."""
    dummy_weights: bool = False
    dtype: str = "bfloat16"
    enforce_eager: bool = False
    tensor_parallel: int = 1
    clock: Literal["wall", "process"] = "wall"
    """``process``: CPU time, for an engine of one thread on a machine with other work."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further vLLM EngineArgs."""

    def pool(self, seed: int) -> Workload:
        """Return the pool of a seed, its sources shuffled together."""
        rng = np.random.default_rng(seed)
        parts = [source.draw(rng) for source in self.sources]
        return shuffle(concatenate(parts, name=f"{self.name}-{seed}"), rng)


def load_validation(path: Path) -> ValidationConfig:
    """Read a config; raises InputError naming the field that is wrong."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a validation config") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML ({error})") from error
    known = {f.name for f in fields(ValidationConfig)}
    if not isinstance(raw, dict):
        raise InputError(f"{path}: found {type(raw).__name__}; expected fields")
    for name in raw:
        if name not in known:
            raise unknown_name(f"{path}: field", name, known)
    for name in ("name", "model", "engine", "schedulers", "sources"):
        if name not in raw:
            raise InputError(f"{path}: no field {name!r}; expected one")
    values = dict(raw)
    values["model"] = path.parent / str(raw["model"])
    values["engine"] = load_preset("vllm").with_settings(raw["engine"], where=f"{path}: engine")
    values["sources"] = tuple(
        _source(f"{path}: sources[{k}]", entry) for k, entry in enumerate(raw["sources"])
    )
    values["extra"] = dict(raw.get("extra") or {})
    for name in (
        "schedulers",
        "run_time_schedulers",
        "calibration_seeds",
        "calibration_schedulers",
    ):
        if name in raw:
            if not isinstance(raw[name], list) or not raw[name]:
                raise InputError(f"{path}: {name}: found {raw[name]!r}; expected a list")
            values[name] = tuple(raw[name])
    config = ValidationConfig(**values)
    known_schedulers = scheduler_names()
    for name in (
        *config.schedulers,
        *config.run_time_schedulers,
        *config.calibration_schedulers,
    ):
        if name not in known_schedulers:
            raise unknown_name(f"{path}: scheduler", name, known_schedulers)
    if config.clock not in ("wall", "process"):
        raise unknown_name(f"{path}: clock", config.clock, ("wall", "process"))
    if config.seed in config.calibration_seeds:
        raise InputError(
            f"{path}: seed: found {config.seed} in calibration_seeds too; expected another, or the "
            "errors are not held out"
        )
    return config


def _source(where: str, entry: Any) -> PoolSource:
    known = {f.name for f in fields(PoolSource)}
    if not isinstance(entry, dict):
        raise InputError(f"{where}: found {entry!r}; expected fields")
    for name, value in entry.items():
        if name not in known:
            raise unknown_name(where, name, known)
        if name in ("tail_tokens", "output_tokens"):
            pair = isinstance(value, list) and [type(v) for v in value] == [int, int]
            if not pair or not 1 <= value[0] <= value[1]:
                raise InputError(f"{where}.{name}: found {value!r}; expected [low, high] from 1 up")
        elif name != "name" and (not isinstance(value, int) or value < 0):
            raise InputError(f"{where}.{name}: found {value!r}; expected a whole number")
    for name in ("name", "requests", "tail_tokens", "output_tokens"):
        if name not in entry:
            raise InputError(f"{where}: no field {name!r}; expected one")
    pairs = {name: tuple(entry[name]) for name in ("tail_tokens", "output_tokens")}
    return PoolSource(**{**entry, **pairs})
