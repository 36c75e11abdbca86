"""Counts in the sentences that people read."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun, ``1 cell`` or ``1,200 cells``; ``plural`` if not noun + s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
