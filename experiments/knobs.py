"""Engine knobs from a config or from ``--set``: a preset, and named fields set over it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from bssim.cost_models.overlap import parse_overlap
from bssim.errors import InputError, unknown_name
from bssim.sim.engine_config import EngineConfig, load_preset

_TYPES = {name: hint for name, hint in get_type_hints(EngineConfig).items() if name != "name"}


def engine_with(preset: str, settings: Mapping[str, Any], where: str) -> EngineConfig:
    """Return a preset with fields set over it.

    Raises InputError, starting with ``where``, for an unknown preset or field (with the nearest
    valid name) and for a value of the wrong type.
    """
    try:
        engine = load_preset(preset)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    for name, value in settings.items():
        if name not in _TYPES:
            raise unknown_name(f"{where}: unknown engine field", name, _TYPES)
        try:
            checked = TypeAdapter(_TYPES[name]).validate_python(value, strict=True)
        except ValidationError as error:
            expected = error.errors()[0]["msg"].removeprefix("Input should be ")
            raise InputError(f"{where}.{name}: found {value!r}; expected {expected}") from error
        engine = replace(engine, **{name: checked})
    try:
        parse_overlap(engine.overlap)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return engine


def parse_settings(options: Sequence[str]) -> dict[str, Any]:
    """Return the engine fields of ``--set engine.FIELD=VALUE`` options; values are read as YAML."""
    settings: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        prefix, dot, name = key.strip().partition(".")
        if not (equals and dot) or prefix != "engine" or not name:
            raise InputError(
                f"--set: found {option!r}; expected engine.FIELD=VALUE, "
                "for example engine.max_num_seqs=64"
            )
        try:
            settings[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {key}: found {value!r}; expected one value") from error
    return settings
