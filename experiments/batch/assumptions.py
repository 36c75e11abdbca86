"""What a comparison assumed, and where each assumption came from."""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Assumption:
    """One thing that the user may not have said."""

    name: str
    value: str | int | float
    origin: str
    """``--model``, ``default``, ``the file``, ...: who said so."""


@dataclass(slots=True)
class Assumptions:
    """What was assumed, in the order in which a person wants to read it."""

    _of: dict[str, Assumption] = field(default_factory=dict)

    def add(self, name: str, value: str | int | float, origin: str) -> None:
        """Note an assumption; a name that is there is said anew."""
        self._of[name] = Assumption(name, value, origin)

    def __iter__(self) -> Iterator[Assumption]:
        return iter(self._of.values())

    def __getitem__(self, name: str) -> Assumption:
        return self._of[name]

    def as_json(self) -> dict[str, dict[str, str | int | float]]:
        """Return ``{name: {"value": ..., "from": ...}}``."""
        return {one.name: {"value": one.value, "from": one.origin} for one in self}
