"""Counts in sentences."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 cell`` or ``1,200 cells``; pass ``plural`` if it is not the noun plus s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
