"""The YAML of a validation: which engine, which schedulers, which pools."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bssim.cost_models.hardware import load_hardware
from bssim.errors import InputError, unknown_name
from bssim.experiments.sweeps.knobs import engine_with
from bssim.sim.engine.config import EngineConfig
from bssim.sim.lengths import estimator_names
from bssim.sim.schedulers.registry import scheduler_names
from bssim.sim.workload.combine import concatenate, shuffle
from bssim.sim.workload.prefix_tree import PrefixTree
from bssim.sim.workload.workload import Workload, make_workload
from bssim.yaml_file import YamlFile, read_yaml


@dataclass(frozen=True, slots=True)
class PoolSource:
    """A kind of request with lengths uniform between two inclusive bounds."""

    name: str
    requests: int
    tail_tokens: tuple[int, int]
    """Prompt tokens that only one request has."""
    output_tokens: tuple[int, int]
    groups: int = 1
    prefix_tokens: int = 0
    """Prompt tokens that all requests of a group share."""

    def draw(self, rng: np.random.Generator) -> Workload:
        """Return ``requests`` requests; their groups alternate."""
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


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """A pool whose orders are compared: its sources, shuffled together."""

    name: str
    sources: tuple[PoolSource, ...]

    def pool(self, seed: int) -> Workload:
        """Return the pool of a seed."""
        rng = np.random.default_rng(seed)
        parts = [source.draw(rng) for source in self.sources]
        return shuffle(concatenate(parts, name=self.name), rng)


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
    pools: tuple[PoolConfig, ...] = ()
    """More pools, on which only fixed orders are compared."""
    pool_schedulers: tuple[str, ...] = ("fcfs", "dfs")
    """Orders of each of `pools`; speed-ups are over the first."""
    repeats: int = 3
    """Replays per fixed order, including calibration; a step's seconds are their minimum."""
    seed: int = 0
    calibration_seeds: tuple[int, ...] = (1, 2)
    calibration_schedulers: tuple[str, ...] = ("random", "dfs")
    output_lengths: str = "oracle"
    hardware: str = "cpu"
    """The hardware that the schedulers assume before a cost model is fitted."""
    dummy_weights: bool = False
    dtype: str = "bfloat16"
    enforce_eager: bool = False
    tensor_parallel: int = 1
    clock: Literal["wall", "process"] = "wall"
    """``process``: CPU time, for a single-threaded engine on a machine with other work."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More vLLM EngineArgs."""

    def pool(self, seed: int) -> Workload:
        """Return the pool of a seed, its sources shuffled together."""
        return PoolConfig(f"{self.name}-{seed}", self.sources).pool(seed)


def load_validation(path: Path) -> ValidationConfig:
    """Read a config; raises InputError that names file, line and field of a wrong value."""
    file = read_yaml(path, "a validation config")
    raw = file.data
    known = {f.name for f in fields(ValidationConfig)}
    if not isinstance(raw, dict):
        raise InputError(path, type(raw).__name__, "fields")
    for name in raw:
        if name not in known:
            raise unknown_name(f"{file.where(name)}: field", name, known)
    for name in ("name", "model", "engine", "schedulers", "sources"):
        if name not in raw:
            raise InputError.saying(path, f"no field {name!r}", "one")
    values = dict(raw)
    for name, value in raw.items():
        where = file.where(name)
        if name in _LISTS:
            values[name] = _list(where, value, _LISTS[name])
        elif name in _TYPES:
            _check(where, value, _TYPES[name])
    for name, names in (
        ("clock", ("wall", "process")),
        ("output_lengths", estimator_names()),
    ):
        if name in raw and raw[name] not in names:
            raise unknown_name(file.where(name), raw[name], names)
    for name in _SCHEDULERS:
        for i, scheduler in enumerate(values.get(name, ())):
            if scheduler not in scheduler_names():
                raise unknown_name(file.where(name, i), scheduler, scheduler_names())
    if "hardware" in raw:
        try:
            load_hardware(raw["hardware"])
        except InputError as error:
            raise error.blamed_on(file.where("hardware"), "hardware") from error
    values["model"] = path.parent / raw["model"]
    values["engine"] = engine_with(
        "vllm",
        raw["engine"],
        preset_at=file.where("engine"),
        settings_at=partial(file.where_field, "engine"),
        overlap_at=file.where_field("engine", "overlap"),
    )
    values["sources"] = tuple(_source(file, ("sources", i)) for i in range(len(raw["sources"])))
    values["pools"] = tuple(_pool(file, i) for i in range(len(values.get("pools", ()))))
    config = ValidationConfig(**values)
    if config.seed in config.calibration_seeds:
        raise InputError(
            file.where_field("seed"),
            f"{config.seed} in calibration_seeds too",
            "another, or the errors are not held out",
        )
    return config


_SCHEDULERS = ("schedulers", "run_time_schedulers", "calibration_schedulers", "pool_schedulers")
_LISTS: Mapping[str, str] = {
    **dict.fromkeys(_SCHEDULERS, "text"),
    "calibration_seeds": "a whole number from 0 up",
    "sources": "fields",
    "pools": "fields",
}
"""Field -> the requirement on its entries."""
_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("name", "model", "hardware", "output_lengths", "dtype", "clock"), "text"),
    **dict.fromkeys(("dummy_weights", "enforce_eager"), "true or false"),
    **dict.fromkeys(("engine", "extra"), "fields"),
    "seed": "a whole number from 0 up",
    "repeats": "a whole number from 1 up",
    "tensor_parallel": "a whole number from 1 up",
}
"""Field -> the requirement on its value."""


def _check(where: str, value: object, expected: str) -> None:
    """Raise InputError unless ``value`` meets ``expected``."""
    whole = value if isinstance(value, int) and not isinstance(value, bool) else -1
    good = {
        "text": isinstance(value, str) and value != "",
        "true or false": isinstance(value, bool),
        "fields": isinstance(value, dict),
        "a whole number from 0 up": whole >= 0,
        "a whole number from 1 up": whole >= 1,
    }
    if not good[expected]:
        raise InputError(where, repr(value), expected)


def _list(where: str, value: object, expected: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(where, repr(value), "a list")
    for i, entry in enumerate(value):
        _check(f"{where}[{i}]", entry, expected)
    return tuple(value)


def _pool(file: YamlFile, i: int) -> PoolConfig:
    """Return a checked entry of ``pools``."""
    entry = file.data["pools"][i]
    for name in entry:
        if name not in ("name", "sources"):
            raise unknown_name(file.where("pools", i, name), name, ("name", "sources"))
    _check(file.where("pools", i, "name"), entry.get("name"), "text")
    _list(file.where("pools", i, "sources"), entry.get("sources"), "fields")
    sources = [_source(file, ("pools", i, "sources", k)) for k in range(len(entry["sources"]))]
    return PoolConfig(entry["name"], tuple(sources))


def _source(file: YamlFile, at: tuple[str | int, ...]) -> PoolSource:
    """Return a checked list entry, found at ``at``."""
    entry, known = file.data, {f.name for f in fields(PoolSource)}
    for key in at:
        entry = entry[key]
    for name, value in entry.items():
        where = file.where(*at, name)
        if name not in known:
            raise unknown_name(where, name, known)
        if name in ("tail_tokens", "output_tokens"):
            pair = isinstance(value, list) and [type(v) for v in value] == [int, int]
            if not pair or not 1 <= value[0] <= value[1]:
                raise InputError(where, repr(value), "[low, high] from 1 up")
        elif name == "name":
            _check(where, value, "text")
        else:
            least = 0 if name == "prefix_tokens" else 1
            _check(where, value, f"a whole number from {least} up")
    for name in ("name", "requests", "tail_tokens", "output_tokens"):
        if name not in entry:
            raise InputError.saying(file.where(*at), f"no field {name!r}", "one")
    pairs = {name: tuple(entry[name]) for name in ("tail_tokens", "output_tokens")}
    return PoolSource(**{**entry, **pairs})
