"""The YAML of a validation: which engine, which schedulers, which pools."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, InstanceOf

from bssim.cost_models.hardware import load_hardware
from bssim.errors import InputError
from bssim.experiments.sweeps import engine_with
from bssim.schema import Listed, Written, one_of, validated
from bssim.sim.engine import EngineConfig
from bssim.sim.lengths import estimator_names
from bssim.sim.schedulers import scheduler_names
from bssim.sim.workload import PrefixTree, Workload, concatenate, make_workload, shuffle
from bssim.yaml_file import read_yaml

Whole = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


def _low_high(value: object) -> object:
    """Read a list of two inclusive bounds."""
    two = isinstance(value, list) and [type(v) for v in value] == [int, int]
    if not two or not 1 <= value[0] <= value[1]:  # type: ignore[index]  # two numbers by now
        raise ValueError("[low, high] from 1 up")
    return tuple(value)  # type: ignore[arg-type]  # a list by now


Bounds = Annotated[tuple[int, int], BeforeValidator(_low_high)]
Schedulers = Annotated[
    Listed[Annotated[str, BeforeValidator(one_of(scheduler_names))]], Field(min_length=1)
]


class PoolSource(Written):
    """A kind of request with lengths uniform between two inclusive bounds."""

    name: Text
    requests: Count
    tail_tokens: Bounds
    """Prompt tokens that only one request has."""
    output_tokens: Bounds
    groups: Count = 1
    prefix_tokens: Whole = 0
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


class PoolConfig(Written):
    """A pool whose orders are compared: its sources, shuffled together."""

    name: Text
    sources: Annotated[Listed[PoolSource], Field(min_length=1)]

    def pool(self, seed: int) -> Workload:
        """Return the pool of a seed."""
        rng = np.random.default_rng(seed)
        parts = [source.draw(rng) for source in self.sources]
        return shuffle(concatenate(parts, name=self.name), rng)


class ValidationConfig(Written):
    """See ``configs/validate/cpu.yaml``."""

    name: Text
    model: InstanceOf[Path]
    engine: InstanceOf[EngineConfig]
    schedulers: Schedulers
    sources: Annotated[Listed[PoolSource], Field(min_length=1)]
    run_time_schedulers: Schedulers = ()
    """Schedulers whose policy also admits at run time, inside the engine."""
    pools: Listed[PoolConfig] = ()
    """More pools, on which only fixed orders are compared."""
    pool_schedulers: Schedulers = ("fcfs", "dfs")
    """Orders of each of `pools`; speed-ups are over the first."""
    repeats: Count = 3
    """Replays per fixed order, including calibration; a step's seconds are their minimum."""
    seed: Whole = 0
    calibration_seeds: Annotated[Listed[Whole], Field(min_length=1)] = (1, 2)
    calibration_schedulers: Schedulers = ("random", "dfs")
    output_lengths: Annotated[str, BeforeValidator(one_of(estimator_names))] = "oracle"
    hardware: Text = "cpu"
    """The hardware that the schedulers assume before a cost model is fitted."""
    dummy_weights: bool = False
    dtype: Text = "bfloat16"
    enforce_eager: bool = False
    tensor_parallel: Count = 1
    clock: Literal["wall", "process"] = "wall"
    """``process``: CPU time, for a single-threaded engine on a machine with other work."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """More vLLM EngineArgs."""

    def pool(self, seed: int) -> Workload:
        """Return the pool of a seed, its sources shuffled together."""
        return PoolConfig(name=f"{self.name}-{seed}", sources=self.sources).pool(seed)


def load_validation(path: Path) -> ValidationConfig:
    """Read a config; raises InputError that names file, line and field of a wrong value."""
    file = read_yaml(path, "a validation config")
    data = dict(file.data) if isinstance(file.data, dict) else file.data
    if isinstance(data, dict) and isinstance(data.get("model"), str):
        data["model"] = path.parent / data["model"]
    if isinstance(data, dict) and "engine" in data:
        if not isinstance(data["engine"], dict):
            raise InputError(file.where("engine"), repr(data["engine"]), "a mapping of knobs")
        data["engine"] = engine_with(
            "vllm",
            data["engine"],
            preset_at=file.where("engine"),
            settings_at=partial(file.where_field, "engine"),
            overlap_at=file.where_field("engine", "overlap"),
        )
    config = validated(file, ValidationConfig, data)
    try:
        load_hardware(config.hardware)
    except InputError as error:
        raise error.blamed_on(file.where("hardware"), "hardware") from error
    if config.seed in config.calibration_seeds:
        raise InputError(
            file.where_field("seed"),
            f"{config.seed} in calibration_seeds too",
            "another, or the errors are not held out",
        )
    return config
