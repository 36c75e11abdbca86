"""Schemas of the YAML files that people write: pydantic models whose errors are `InputError`s.

Every reader of such a file uses this one way: `read_yaml`, a subclass of `Written` with a field per
key, and `validated`. An error names file, line and field, the value found and what was expected.
pydantic takes 0.1 s to import, so only the readers of files import this module.
"""

from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bssim.errors import InputError, unknown_name
from bssim.yaml_file import YamlFile

Schema = TypeVar("Schema", bound=BaseModel)
UNSOURCED = "given without a source"
"""The provenance of a number that a file states without one."""


class Written(BaseModel):
    """A mapping in a file: no unknown keys, and no value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _number(value: object) -> object:
    """Read 96e9 as a number: to YAML 1.1 it is a text, because it has no point and no sign."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
"""A finite number; true and false are none."""


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], BeforeValidator(_as_tuple)]
"""A list in the file, a tuple for the reader."""


def one_of(names: Callable[[], Iterable[str]]) -> Callable[[object], object]:
    """Return a check for a `BeforeValidator`: a value is one of ``names()``."""

    def check(value: object) -> object:
        known = list(names())
        if value not in known:
            raise PydanticCustomError("unknown_name", "one of: {known}", {"known": known})
        return value

    return check


class Sourced(Written):
    """A value and its source. A value alone stands for itself `UNSOURCED`."""

    value: Any
    source: str = UNSOURCED

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, found: object) -> object:
        if found is None:
            raise ValueError("a value, or {value: VALUE, source: TEXT}")
        return found if isinstance(found, dict) else {"value": found}


class Quantity(Sourced):
    """A positive number and its source."""

    value: Annotated[Number, Field(gt=0)]


class QuantityFromZero(Sourced):
    """A number of at least 0 and its source."""

    value: Annotated[Number, Field(ge=0)]


def validated(file: YamlFile, schema: type[Schema], data: object = None) -> Schema:
    """Return the content of a file, or ``data`` made from it, as a ``schema``.

    Raises InputError for one wrong place: a misspelt key before a wrong value, and that before a
    missing key.
    """
    found = file.data if data is None else data
    if not isinstance(found, dict):
        raise InputError(file.path, type(found).__name__, "a mapping of fields")
    try:
        return schema.model_validate(found)
    except ValidationError as error:
        raise _as_input_error(file, schema, error) from error


def _as_input_error(file: YamlFile, schema: type[BaseModel], error: ValidationError) -> InputError:
    rank = {"extra_forbidden": 0, "missing": 2}
    first, *others = sorted(error.errors(), key=lambda e: rank.get(e["type"], 1))
    loc, kind = first["loc"], first["type"]
    where = file.where(*loc)
    more = f" (and {len(others)} more)" if others else ""
    if kind == "extra_forbidden":
        unknown = unknown_name(f"{where}: unknown key", loc[-1], _known_keys(schema, loc[:-1]))
        return InputError.saying(unknown.where, unknown.problem, f"{unknown.expected}{more}")
    if kind == "unknown_name":
        return unknown_name(where, first["input"], first["ctx"]["known"])
    if kind == "missing":
        return InputError.saying(file.where(*loc[:-1]), f"{loc[-1]!r} is missing{more}")
    if kind == "too_short":
        return InputError(where, "an empty list", f"at least one value{more}")
    expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if kind == "model_type":
        expected = f"a mapping of: {', '.join(_known_keys(schema, loc))}"
    return InputError(where, repr(first["input"]), f"{expected}{more}")


def _known_keys(schema: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the keys that may stand in the mapping at ``loc`` of a file."""
    kind: Any = schema
    for part in loc:
        kind = _inside(kind, part)
    return _keys(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _keys(schema: type[BaseModel]) -> list[str]:
    keys: list[str] = []
    for name, field in schema.model_fields.items():
        alias = field.validation_alias
        keys += [str(c) for c in alias.choices] if isinstance(alias, AliasChoices) else [name]
    return keys


def _inside(kind: Any, part: int | str) -> Any:
    """Return the type of the value at the key, position or union tag ``part`` of a ``kind``."""
    if get_origin(kind) is Annotated:
        return _inside(get_args(kind)[0], part)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            alias = field.validation_alias
            choices = alias.choices if isinstance(alias, AliasChoices) else ()
            if part == name or part in choices:
                return field.annotation
        return None
    if get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            if any(isinstance(m, Tag) and m.tag == part for m in get_args(member)[1:]):
                return get_args(member)[0]
        return next((found for m in get_args(kind) if (found := _inside(m, part))), None)
    if get_origin(kind) in (list, tuple, Mapping, dict):
        return get_args(kind)[1 if isinstance(part, str) else 0]
    return None
