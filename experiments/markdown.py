"""A table in Markdown."""

from collections.abc import Iterable, Sequence

_MARKS = {"l": "---", "r": "---:"}


def markdown_table(
    columns: Sequence[object], rows: Iterable[Sequence[object]], align: str = "l"
) -> list[str]:
    """Return the lines of a table.

    ``align`` has a letter per column, ``l`` for left and ``r`` for right; columns beyond its end
    are aligned right.
    """
    marks = [_MARKS[letter] for letter in align.ljust(len(columns), "r")[: len(columns)]]
    lines = ["| " + " | ".join(map(str, columns)) + " |", "|" + "|".join(marks) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return lines
