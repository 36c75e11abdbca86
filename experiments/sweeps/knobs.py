"""Engine knobs from a config or from ``--set``: a preset, and named fields set over it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bssim.cost_models.overlap import parse_overlap
from bssim.errors import InputError
from bssim.sim.engine.config import EngineConfig, load_preset


def engine_with(
    preset: str,
    settings: Mapping[str, Any],
    *,
    preset_at: str,
    settings_at: Callable[[str], str],
    overlap_at: str,
) -> EngineConfig:
    """Return a preset with fields set over it.

    Raises InputError for an unknown preset, field or overlap model (with the nearest valid name)
    and for a value that a field cannot have. The message starts with the place that is to blame:
    ``preset_at``, ``settings_at`` of the field, or ``overlap_at``.
    """
    with _blamed_on(preset_at, "engine"):
        engine = load_preset(preset)
    try:
        engine = engine.with_settings(dict(settings))
    except InputError as error:
        field, _, rest = str(error).removeprefix("engine.").partition(": ")
        raise InputError(f"{settings_at(field)}: {rest}") from error
    with _blamed_on(overlap_at, "overlap"):
        parse_overlap(engine.overlap)
    return engine


def engine_from_options(
    preset: str, settings: Sequence[str] | None, overlap: str | None = None
) -> EngineConfig:
    """Return the engine of ``--engine``, ``--set`` and ``--overlap``, which wins over ``--set``.

    Raises InputError as `engine_with`, naming the option.
    """
    knobs = parse_settings(settings or [])
    if overlap is not None:
        knobs["overlap"] = overlap
    return engine_with(
        preset,
        knobs,
        preset_at="--engine",
        settings_at="--set engine.{}".format,
        overlap_at="--set engine.overlap" if overlap is None else "--overlap",
    )


@contextmanager
def _blamed_on(place: str, field: str) -> Iterator[None]:
    """Put ``place`` where an InputError's message starts with ``field``."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}{str(error).removeprefix(field)}") from error


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
