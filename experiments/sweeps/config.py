"""The sweep file: a YAML mapping, checked before anything runs; every list in it is a grid."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BeforeValidator, Discriminator, Field, Tag

from bssim.errors import InputError
from bssim.schema import Written, validated
from bssim.sim.workload import MOST_NUM_REQUESTS
from bssim.yaml_file import YamlFile, read_yaml

T = TypeVar("T")
Loc = tuple[int | str, ...]
"""The place of a value in the file: keys and list positions from the top."""

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,)


Grid = Annotated[tuple[T, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""One value, or a list of values to sweep over."""

Requests = Annotated[int, Field(ge=1, le=MOST_NUM_REQUESTS)]
"""The size of a pool."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""A random seed; rows keep it as an integer of 64 bits."""


class MixParts(Written):
    """The source traces of a mix, and its targets (paper section 6.2)."""

    compute: str = "burstgpt"
    """Compute-intensive source: a built-in name or a trace file."""
    memory: str = "openvid"
    """Memory-intensive source."""
    sharing: str = "mmlu"
    """Source added until `sharing_target` is reached."""
    density: Grid[Annotated[float, Field(gt=0)]]
    """Compute seconds over memory seconds of the whole mix."""
    sharing_target: Grid[Annotated[float, Field(ge=0, lt=1)]]
    """Share of prompt tokens that a DFS order finds cached."""


class MixEntry(Written):
    """A workload synthesised to a target."""

    mix: MixParts
    name: str | None = None
    num_requests: Requests | None = None
    seed: Seed | None = None


class FileEntry(Written):
    """A trace file, or a built-in name, with options of its own (see `ReaderOptions`)."""

    source: str = Field(validation_alias=AliasChoices("source", "file"))
    name: str | None = None
    format: str | None = None
    tokenizer: str | None = None
    default_output_tokens: Annotated[int, Field(ge=1)] | None = None
    max_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    num_requests: Requests | None = None
    seed: Seed | None = None


def _workload(value: object) -> object:
    if not isinstance(value, str | Mapping):
        raise ValueError("a workload: its name, or a mapping with source or mix")
    return value


def _entry_kind(value: object) -> str:
    if isinstance(value, str):
        return "name"
    return "mix" if isinstance(value, Mapping) and "mix" in value else "file"


WorkloadEntry = Annotated[
    Annotated[str, Tag("name")]
    | Annotated[MixEntry, Tag("mix")]
    | Annotated[FileEntry, Tag("file")],
    Discriminator(_entry_kind),
    BeforeValidator(_workload),
]
MOST_REPLICAS = 10_000
"""More replicas would take long to plan and have no requests."""
Ranks = Annotated[int, Field(ge=1, le=MOST_REPLICAS)]
"""Replicas, pipeline stages, or GPUs that share the layers."""


def _engine(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError("an engine: a preset, or a mapping of preset and engine fields")
    return value


def _name(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"\w[\w.+-]*", value):
        raise ValueError("letters, digits and . _ + - only, starting with a letter, a digit or _")
    return value


EngineEntry = Annotated[str | dict[str, Any], BeforeValidator(_engine)]
"""A preset, or a mapping of ``preset`` and engine fields, each one value or a list."""


def _plural(field: str) -> AliasChoices:
    return AliasChoices(field + "s", field)


class SweepConfig(Written):
    """The fields of a sweep file. Every combination of the fields that are lists is run."""

    name: Annotated[str | None, BeforeValidator(_name)] = None
    """Name of the results folder, so never ``..``; None: the file's stem."""
    workloads: Grid[WorkloadEntry] = Field(validation_alias=_plural("workload"))
    schedulers: Grid[str] = Field(validation_alias=_plural("scheduler"))
    models: Grid[str] = Field(("llama-3-8b",), validation_alias=_plural("model"))
    dtype: Grid[str | None] = (None,)
    """vLLM's option, like the next two; None: each model's own setting."""
    quantization: Grid[str | None] = (None,)
    """``none``: the plain weights of a quantised model."""
    kv_cache_dtype: Grid[str | None] = (None,)
    hardware: Grid[str] = ("a100-80gb",)
    engines: Grid[EngineEntry] = Field(("nanoflow",), validation_alias=_plural("engine"))
    overlap: Grid[str | None] = (None,)
    """None: the engine preset's own."""
    cost_models: Grid[str] = Field(("roofline",), validation_alias=_plural("cost_model"))
    output_lengths: Grid[str] = ("sampled",)
    num_requests: Grid[Requests | None] = (None,)
    """None: the size of a built-in workload (400,000), or every row of a file."""
    seeds: Grid[Seed] = Field((0,), validation_alias=_plural("seed"))
    tp: Grid[Ranks] = (1,)
    pp: Grid[Ranks | None] = (None,)
    """Stages of each replica; None: the engine's own ``pipeline_parallel_size``."""
    dp: Grid[Ranks] = (1,)
    disaggregation: Grid[str | None] = (None,)
    """Prefill and decode replicas, such as ``1P2D``; None: every replica does both."""
    on_oversize: Literal["error", "drop"] = "error"
    """What to do with a request that can never fit the KV cache or max_model_len."""
    timeline: bool | None = None
    """Keep a downsampled timeline of each cell; None: only in sweeps of at most 40 cells."""


@dataclass(frozen=True)
class SweepFile:
    """A checked sweep file that can name a place in it."""

    file: YamlFile
    config: SweepConfig

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.file.path

    @property
    def name(self) -> str:
        """Name of the sweep and of its results folder."""
        return self.config.name or self.path.stem

    def where(self, *loc: int | str) -> str:
        """Return ``file:line: field`` for a place, e.g. ``a.yaml:4: schedulers[1]``."""
        return self.file.where(*loc)

    def resolve(self, source: str) -> str:
        """Return the path of a file named in the config, relative to the config's own folder.

        Text that does not look like a path (no ``/`` and no suffix of a data file) is a built-in
        name. The file of a ``fitted:FILE`` is a path too.
        """
        kind, colon, file = source.partition(":")
        if kind == "fitted" and file:
            return f"{kind}{colon}{self.path.parent / file}"
        looks_like_path = "/" in source or Path(source).suffix in _DATA_SUFFIXES
        return str(self.path.parent / source) if looks_like_path else source


_DATA_SUFFIXES = {".csv", ".gz", ".json", ".jsonl", ".yaml", ".yml"}


def read_sweep_file(path: Path, num_requests: int | None = None) -> SweepFile:
    """Read and check a sweep file; ``num_requests`` replaces the number in the file.

    Raises InputError for a file that cannot be read, is not YAML, or has a wrong key, type or
    value; the message names file, line, field, the value found and what was expected.
    """
    file = read_yaml(path, "a YAML sweep file")
    if not isinstance(file.data, dict):
        raise InputError(
            path, type(file.data).__name__, "a mapping with at least `workloads:` and `schedulers:`"
        )
    data = _expand_variables(file, file.data, ())
    for plural, field in SweepConfig.model_fields.items():
        singular = plural.removesuffix("s")
        if plural in data and singular in data and singular != plural:
            where = file.where(singular)
            raise InputError(where, f"beside {plural!r}", "one of the two")
        if field.is_required() and plural not in data and singular not in data:
            raise InputError.saying(path, f"{plural}: missing", "a name or a list of names")
    if num_requests is not None:
        data["num_requests"] = num_requests
    return SweepFile(file, validated(file, SweepConfig, data))


def _expand_variables(file: YamlFile, value: Any, loc: Loc) -> Any:
    """Replace ``$NAME`` and ``${NAME}`` in every string by the environment's value."""
    if isinstance(value, dict):
        return {k: _expand_variables(file, v, (*loc, k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand_variables(file, v, (*loc, i)) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        setting = os.environ.get(name)
        if not setting:  # empty would turn $NAME/a.csv into /a.csv
            raise InputError(
                file.where(*loc),
                f"{value!r}, but the environment variable {name} is not set, or empty",
                "it to name a folder",
            )
        return setting

    return _VARIABLE.sub(replace, value)
