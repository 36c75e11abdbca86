"""Tables for chapters: pandas in, Markdown out."""

from collections.abc import Callable

import pandas as pd


def markdown_table(
    table: pd.DataFrame, render: Callable[[object], str], *, corner: str | None = None
) -> str:
    """Return a table as Markdown; a missing value stays empty.

    The index makes the left columns (headed by its names, or by ``corner``), every other value goes
    through ``render``.
    """
    index = table.index.to_frame(index=False)
    heads = [corner] if corner is not None else [str(name or "") for name in index.columns]
    lines = [
        "| " + " | ".join([*heads, *map(str, table.columns)]) + " |",
        "|" + "---|" * len(heads) + "---:|" * len(table.columns),
    ]
    for left, values in zip(index.to_numpy(), table.to_numpy(dtype=object), strict=True):
        cells = ["" if pd.isna(value) else render(value) for value in values]
        lines.append("| " + " | ".join([*map(str, left), *cells]) + " |")
    return "\n".join(lines)


def mean_and_range(values: "pd.Series[float]") -> str:
    """Return ``.953 (.951-.956)``; of a single value, the value alone."""
    low, mean, high = values.min(), values.mean(), values.max()
    text = f"{mean:.3f}"
    return text if len(values) == 1 else f"{text} ({low:.3f}-{high:.3f})"
