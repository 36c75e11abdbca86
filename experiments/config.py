"""The sweep file: a YAML mapping, checked before anything runs; every list in it is a grid."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
)

from bssim.errors import InputError, unknown_name

T = TypeVar("T")
Loc = tuple[int | str, ...]
"""Where a value stands in the file: keys and list positions from the top."""

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,)


Grid = Annotated[tuple[T, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""One value, or a list of values to sweep over."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MixParts(_Strict):
    """The traces a mix is made of, and its targets (paper section 6.2)."""

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


class MixEntry(_Strict):
    """A workload synthesised to a target."""

    mix: MixParts
    name: str | None = None
    num_requests: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None


class FileEntry(_Strict):
    """A trace file, or a built-in name, with options of its own (see `ReaderOptions`)."""

    source: str = Field(validation_alias=AliasChoices("source", "file"))
    name: str | None = None
    format: str | None = None
    tokenizer: str | None = None
    output_tokens: Annotated[int, Field(ge=1)] | None = None
    max_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    num_requests: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None


def _entry_kind(value: object) -> str:
    if isinstance(value, str):
        return "name"
    return "mix" if isinstance(value, Mapping) and "mix" in value else "file"


WorkloadEntry = Annotated[
    Annotated[str, Tag("name")]
    | Annotated[MixEntry, Tag("mix")]
    | Annotated[FileEntry, Tag("file")],
    Discriminator(_entry_kind),
]
EngineEntry = str | dict[str, Any]
"""A preset, or a mapping of ``preset`` and engine fields, each one value or a list."""


def _plural(field: str) -> AliasChoices:
    return AliasChoices(field + "s", field)


class SweepConfig(_Strict):
    """What a sweep file may say. Fields that may be lists are swept over."""

    name: Annotated[str, Field(pattern=r"^[\w.+-]+$")] | None = None
    """Folder of the results; None: the file's stem."""
    workloads: Grid[WorkloadEntry] = Field(validation_alias=_plural("workload"))
    schedulers: Grid[str] = Field(validation_alias=_plural("scheduler"))
    models: Grid[str] = Field(("llama-3-8b",), validation_alias=_plural("model"))
    hardware: Grid[str] = ("a100-80gb",)
    engines: Grid[EngineEntry] = Field(("nanoflow",), validation_alias=_plural("engine"))
    overlap: Grid[str | None] = (None,)
    """None: the engine preset's own."""
    cost_models: Grid[str] = Field(("roofline",), validation_alias=_plural("cost_model"))
    output_lengths: Grid[str] = ("sampled",)
    num_requests: Grid[Annotated[int, Field(ge=1)] | None] = (None,)
    """None: the size of a built-in workload (400,000), or every row of a file."""
    seeds: Grid[Annotated[int, Field(ge=0)]] = Field((0,), validation_alias=_plural("seed"))
    tp: Grid[Annotated[int, Field(ge=1)]] = (1,)
    dp: Grid[Annotated[int, Field(ge=1)]] = (1,)
    disaggregation: Grid[str | None] = (None,)
    """Prefill and decode replicas, as ``1P2D``; None: every replica does both."""
    on_oversize: Literal["error", "drop"] = "error"
    """What to do with a request that can never fit the KV cache or max_model_len."""
    timeline: bool | None = None
    """Keep a downsampled timeline of each cell; None: only in sweeps of at most 40 cells."""


@dataclass(frozen=True)
class SweepFile:
    """A checked sweep file, and how to name a place in it."""

    path: Path
    config: SweepConfig
    root: yaml.Node

    @property
    def name(self) -> str:
        """Name of the sweep and of its results folder."""
        return self.config.name or self.path.stem

    def where(self, *loc: int | str) -> str:
        """Return ``file:line: field`` for a place, e.g. ``a.yaml:4: schedulers[1]``."""
        return _where(self.path, self.root, loc)

    def resolve(self, source: str) -> str:
        """Return the path of a file named in the config, relative to the config's own folder.

        What does not look like a path (no ``/`` and no suffix of a data file) is a built-in name.
        The file of a ``fitted:FILE`` is one too.
        """
        kind, colon, file = source.partition(":")
        if kind == "fitted" and file:
            return f"{kind}{colon}{self.path.parent / file}"
        looks_like_path = "/" in source or Path(source).suffix in _DATA_SUFFIXES
        return str(self.path.parent / source) if looks_like_path else source


_DATA_SUFFIXES = {".csv", ".gz", ".json", ".jsonl", ".yaml", ".yml"}


def read_sweep_file(path: Path, num_requests: int | None = None) -> SweepFile:
    """Read and check a sweep file; ``num_requests`` takes the place of the file's own.

    Raises InputError for a file that cannot be read, is no YAML, or has a wrong key, type or value;
    the message names file, line, field, the value found and what was expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"{path}: cannot be read: {why}; expected a YAML sweep file") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise InputError(f"{path}{line}: not valid YAML: {error.problem}") from error
    if not isinstance(root, yaml.MappingNode) or not isinstance(data, dict):
        raise InputError(
            f"{path}: found {type(data).__name__}; expected a mapping with at least "
            "`workloads:` and `schedulers:`"
        )
    _reject_repeated_keys(path, root)
    data = _expand_variables(path, root, data, ())
    for plural, field in SweepConfig.model_fields.items():
        singular = plural.removesuffix("s")
        if plural in data and singular in data and singular != plural:
            where = _where(path, root, (singular,))
            raise InputError(f"{where}: found beside {plural!r}; expected one of the two")
        if field.is_required() and plural not in data and singular not in data:
            raise InputError(f"{path}: {plural}: missing; expected a name or a list of names")
    if num_requests is not None:
        data["num_requests"] = num_requests
    try:
        return SweepFile(path, SweepConfig.model_validate(data), root)
    except ValidationError as error:
        raise _as_input_error(path, root, data, error) from error


def _reject_repeated_keys(path: Path, node: yaml.Node) -> None:
    """YAML readers silently keep the last of two equal keys: here that is an error."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _reject_repeated_keys(path, item)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise InputError(
                    f"{path}:{line}: {key.value!r} is given twice; first on line {seen[key.value]}"
                )
            seen[key.value] = line
            _reject_repeated_keys(path, value)


def _expand_variables(path: Path, root: yaml.Node, value: Any, loc: Loc) -> Any:
    """Replace ``$NAME`` and ``${NAME}`` in every string by the environment's value."""
    if isinstance(value, dict):
        return {k: _expand_variables(path, root, v, (*loc, k)) for k, v in value.items()}
    if isinstance(value, list):
        return [_expand_variables(path, root, v, (*loc, i)) for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        setting = os.environ.get(name)
        if not setting:  # empty would turn $NAME/a.csv into /a.csv
            raise InputError(
                f"{_where(path, root, loc)}: found {value!r}, but the environment variable {name} "
                "is not set, or empty; expected it to name a folder"
            )
        return setting

    return _VARIABLE.sub(replace, value)


def _where(path: Path, root: yaml.Node, loc: Sequence[int | str]) -> str:
    """Return ``file:line: field``, following ``loc`` as far as the file goes."""
    node, line, field = root, None, ""
    for part in loc:
        if isinstance(part, int):
            if not isinstance(node, yaml.SequenceNode) or part >= len(node.value):
                continue  # one value where a list may stand
            node = node.value[part]
            line, field = node.start_mark.line, f"{field}[{part}]"
        else:
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            names = (part, part.removesuffix("s"))  # plural or singular, as the file has it
            found = [(key, value) for key, value in pairs if key.value in names]
            if not found:
                continue  # a union tag of pydantic, or a field left at its default
            key, node = found[0]
            line, field = key.start_mark.line, f"{field}.{key.value}" if field else key.value
    return f"{path}:{line + 1}: {field}" if line is not None else str(path)


def _as_input_error(
    path: Path, root: yaml.Node, data: Mapping[str, Any], error: ValidationError
) -> InputError:
    """Turn one of pydantic's complaints into our own form, a misspelt key before any other."""
    first, *others = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    loc = first["loc"]
    where = _where(path, root, loc)
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        model: type[BaseModel] = SweepConfig
        if loc[0] in ("workloads", "workload"):
            model = MixParts if loc.count("mix") == 2 else MixEntry if "mix" in loc else FileEntry
        known = _keys(model)
        return InputError(f"{unknown_name(f'{where}: unknown key', loc[-1], known)}{more}")
    if first["type"] == "missing":
        field = ".".join(str(part) for part in loc if part not in ("mix", "file"))
        return InputError(f"{where}: {loc[-1]!r} is missing ({field}){more}")
    if first["type"] == "too_short":
        return InputError(f"{where}: found an empty list; expected at least one value{more}")
    expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return InputError(f"{where}: found {first['input']!r}; expected {expected}{more}")


def _keys(model: type[BaseModel]) -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        alias = field.validation_alias
        keys += [str(c) for c in alias.choices] if isinstance(alias, AliasChoices) else [name]
    return keys
