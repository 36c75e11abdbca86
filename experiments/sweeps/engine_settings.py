"""Engine knobs from a config or from ``--set``: a preset, and fields that replace its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bssim.cost_models.overlap import parse_overlap
from bssim.errors import InputError
from bssim.sim.engine import EngineConfig, load_preset


def engine_with(
    preset: str,
    settings: Mapping[str, Any],
    *,
    preset_at: str,
    settings_at: Callable[[str], str],
    overlap_at: str,
) -> EngineConfig:
    """Return a preset with some fields replaced.

    Raises InputError for an unknown preset, field or overlap model (with the nearest valid name)
    and for a value that a field cannot have. The message starts with the place of the problem:
    ``preset_at``, ``settings_at`` of the field, or ``overlap_at``.
    """
    try:
        engine = load_preset(preset)
    except InputError as error:
        raise error.blamed_on(preset_at, "engine") from error
    try:
        engine = engine.with_settings(dict(settings))
    except InputError as error:
        field = error.where.removeprefix("engine.")
        raise error.blamed_on(settings_at(field), error.where) from error
    try:
        parse_overlap(engine.overlap)
    except InputError as error:
        raise error.blamed_on(overlap_at, "overlap") from error
    return engine


def engine_from_options(
    preset: str,
    settings: Sequence[str] | None,
    overlap: str | None = None,
    pp: int | None = None,
) -> EngineConfig:
    """Return the engine of ``--engine``, ``--set``, ``--overlap`` and ``--pp``.

    The last two take precedence over ``--set``.

    Raises InputError like `engine_with`, naming the option.
    """
    knobs = parse_settings(settings or [])
    if overlap is not None:
        knobs["overlap"] = overlap
    if pp is not None:
        knobs["pipeline_parallel_size"] = pp
    return engine_with(
        preset,
        knobs,
        preset_at="--engine",
        settings_at="--set engine.{}".format,
        overlap_at="--set engine.overlap" if overlap is None else "--overlap",
    )


def parse_settings(options: Sequence[str]) -> dict[str, Any]:
    """Return the engine fields of ``--set engine.FIELD=VALUE`` options."""
    settings: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        prefix, dot, name = key.strip().partition(".")
        if not (equals and dot) or prefix != "engine" or not name:
            raise InputError(
                "--set", repr(option), "engine.FIELD=VALUE, for example engine.max_num_seqs=64"
            )
        settings[name] = value.strip()
    return settings
