"""A table for the terminal that fits its width."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.table import Table

GAP = 2
"""Spaces between two columns."""


@dataclass(frozen=True, slots=True)
class TextColumn:
    """A column: its heading and one text per row."""

    head: str
    values: tuple[str, ...]
    is_text: bool = False
    """Text is aligned left, numbers right."""
    folds: bool = False
    """Whether long texts may take several lines."""

    @property
    def width(self) -> int:
        """The width of the widest line."""
        return max(map(len, (*self.head.split("\n"), *self.values)))


def text_table(
    columns: Sequence[TextColumn],
    width: int | None = None,
    *,
    leave_out_first: Sequence[str] = (),
    bold_row: int | None = None,
) -> "Table":
    """Return a table; None as ``width`` means as wide as it needs to be.

    If it is wider than ``width``, headings of several words take one line per word. If that is not
    enough, the columns with the headings ``leave_out_first`` are left out, one after another. A
    caption names them.
    """
    from rich import box
    from rich.table import Table

    kept, dropped = list(columns), []
    if width is not None and _width(kept) > width:
        leave_out = [name for name in leave_out_first if any(c.head == name for c in kept)]
        kept = [replace(column, head=column.head.replace(" ", "\n")) for column in kept]
        while leave_out and _width(kept) > width:
            dropped.append(name := leave_out.pop(0))
            kept = [column for column in kept if column.head != name.replace(" ", "\n")]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column in kept:
        side: Literal["left", "right"] = "left" if column.is_text else "right"
        table.add_column(column.head, justify=side, no_wrap=not column.folds, overflow="fold")
    for place in range(len(columns[0].values)):
        style = "bold" if place == bold_row else None
        table.add_row(*(column.values[place] for column in kept), style=style)
    if dropped:
        table.caption = f"{width} columns have no room for {', '.join(dropped)}"
        table.caption_justify = "left"
    return table


def _width(columns: Sequence[TextColumn]) -> int:
    """Return the width of a table: one space at both ends, and `GAP` between columns."""
    return sum(column.width + GAP for column in columns)
