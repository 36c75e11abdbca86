"""A table in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, text_columns: int = 1
) -> list[str]:
    """Return the lines of a table; columns after the first ``text_columns`` are aligned right."""
    marks = ["---"] * text_columns + ["---:"] * (len(columns) - text_columns)
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join(marks[: len(columns)]) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return lines
