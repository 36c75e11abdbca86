"""Engine knobs from a config or from ``--set``: a preset, and named fields set over it."""

from collections.abc import Mapping, Sequence
from typing import Any

from bssim.cost_models.overlap import parse_overlap
from bssim.errors import InputError
from bssim.sim.engine_config import EngineConfig, load_preset


def engine_with(preset: str, settings: Mapping[str, Any], where: str) -> EngineConfig:
    """Return a preset with fields set over it.

    Raises InputError, starting with ``where``, for an unknown preset, field or overlap model (with
    the nearest valid name) and for a value that a field cannot have.
    """
    try:
        engine = load_preset(preset).with_settings(dict(settings))
        parse_overlap(engine.overlap)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return engine


def parse_settings(options: Sequence[str]) -> dict[str, Any]:
    """Return the engine fields of ``--set engine.FIELD=VALUE`` options."""
    settings: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        prefix, dot, name = key.strip().partition(".")
        if not (equals and dot) or prefix != "engine" or not name:
            raise InputError(
                f"--set: found {option!r}; expected engine.FIELD=VALUE, "
                "for example engine.max_num_seqs=64"
            )
        settings[name] = value.strip()
    return settings
