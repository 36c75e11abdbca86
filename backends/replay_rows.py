"""What the fields of a replay's files may be, so that a damaged file is refused by name."""

from collections.abc import Callable, Mapping
from typing import Any

from bssim.errors import InputError

Kinds = Mapping[str, tuple[Callable[[Any], bool], str]]
"""Field -> whether a value is right, and what was expected."""
_MOST = 1 << 53
"""Counts are smaller, as in every input of bssim."""


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _seconds(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < _MOST  # type: ignore[operator]  # a number


def _counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_count, value.values()))


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _mapping(value: object) -> bool:
    return isinstance(value, dict)


COUNT = (_count, "a whole number, 0 or more")
SECONDS = (_seconds, "seconds, 0 or more")
HEAD: Kinds = {
    **dict.fromkeys(("workload", "workload_digest", "scheduler"), (_text, "a text")),
    "num_requests": COUNT,
    "engine": (_mapping, "a mapping of engine settings"),
}
STEP: Kinds = {
    "seconds": SECONDS,
    **dict.fromkeys(("replica", "segment"), COUNT),
    **dict.fromkeys(("scheduled", "cached"), (_counts, "a mapping of requests to tokens")),
    **dict.fromkeys(("preempted", "finished"), (_names, "a list of requests")),
}
REQUEST: Kinds = {
    "request_id": (_text, "a text"),
    **dict.fromkeys(
        ("prompt_tokens", "output_tokens", "cached_tokens", "replica", "segment"), COUNT
    ),
    "finish_s": SECONDS,
}


def check_row(where: str, row: object, kinds: Kinds) -> None:
    """Raise InputError unless ``row`` is a mapping with every field of ``kinds``."""
    if not isinstance(row, dict):
        raise InputError(where, type(row).__name__, "what `bssim replay` writes")
    for name, (good, expected) in kinds.items():
        if not good(row.get(name)):
            raise InputError(f"{where}: {name}", repr(row.get(name)), expected)
