"""The assumptions of a comparison, each with its origin."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Assumption:
    """A setting that the user may not have given."""

    name: str
    value: str | int | float
    origin: str
    """Where the value comes from: ``given``, ``default``, ``engine``, ..."""


@dataclass(slots=True)
class Assumptions:
    """All assumptions, in the order in which they are shown."""

    _of: dict[str, Assumption] = field(default_factory=dict)

    def add(self, name: str, value: str | int | float, origin: str) -> None:
        """Record an assumption. An existing one of the same name is replaced."""
        self._of[name] = Assumption(name, value, origin)

    def __iter__(self) -> Iterator[Assumption]:
        return iter(self._of.values())

    def __getitem__(self, name: str) -> Assumption:
        return self._of[name]

    def as_json(self) -> dict[str, dict[str, str | int | float]]:
        """Return ``{name: {"value": ..., "from": ...}}``."""
        return {one.name: {"value": one.value, "from": one.origin} for one in self}
