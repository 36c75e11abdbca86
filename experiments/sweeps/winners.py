"""The result of a sweep: which order is fastest in each setting, and by how much."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bssim.experiments.markdown import markdown_table
from bssim.experiments.text_table import TextColumn, text_table
from bssim.sim.result import NOTED_TAIL

if TYPE_CHECKING:
    from rich.table import Table

BASELINES = ("dfs", "fcfs")
"""Schedulers that speed-ups compare with."""
TIED = 1.001
"""A fastest order that leads the next by less than this is no reason to change."""
SHARES = ("share_of_bound", "share_of_optimum")
OF_THE_FASTEST = (*SHARES, "tail_share", "throughput_without_tail_tok_s")


def winners(common: pd.DataFrame) -> pd.DataFrame:
    """Return the fastest scheduler of every setting and workload, its rate and its speed-ups.

    ``common`` are finished rows with a column ``setting``, for seeds that all schedulers have. The
    columns are setting, workload, fastest, tokens_s, over_next (its rate over the second best),
    `OF_THE_FASTEST` and, for each baseline that ran, ``over_NAME``. Rates are means over seeds.
    Places with only one scheduler are left out.
    """
    rows = []
    for (setting, workload), group in common.groupby(["setting", "workload"], sort=False):
        means = group.groupby("scheduler", sort=False)
        rates = means["throughput_tok_s"].mean().astype("float64")
        if len(rates) < 2:
            continue
        best = str(rates.idxmax())
        row = {
            "setting": setting,
            "workload": workload,
            "fastest": best,
            "tokens_s": rates[best],
            "over_next": rates[best] / rates.drop(best).max(),
            **{name: means[name].mean()[best] for name in OF_THE_FASTEST},
        }
        row |= {f"over_{name}": rates[best] / rates[name] for name in BASELINES if name in rates}
        rows.append(row)
    return pd.DataFrame(rows)


def conclusion(table: pd.DataFrame) -> str:
    """Return the table of `winners` in words; means of ratios are geometric."""
    if not len(table):
        return "No setting has results of two schedulers, so there is nothing to compare."
    counts = table["fastest"].value_counts()
    places = "1 case" if len(table) == 1 else f"{len(table)} cases"
    first, *others = [f"`{name}` in {n}" for name, n in counts.items()]
    leaders = ", ".join([f"{first} of {places}", *others])
    gains = []
    for name in BASELINES:
        if (table["fastest"] == name).all():
            continue  # it would be as fast as itself
        if f"over_{name}" in table and len(found := table[f"over_{name}"].dropna()):
            mean = float(np.exp(np.log(found).mean()))
            spread = f" ({found.min():.3f}x to {found.max():.3f}x)" if len(found) > 1 else ""
            gains.append(f"{mean:.3f}x as fast as `{name}`{spread}")
    how = "" if len(table) == 1 else "; means are geometric"
    gain = f", and {' and '.join(gains)}{how}" if gains else ""
    ties = int((table["over_next"] < TIED).sum())
    where = "" if len(table) == 1 else f" in {ties} of {places}"
    tied = f" Another order is within 0.1% of it{where}." if ties else ""
    return f"The fastest order is {leaders}{gain}.{tied}"


def tail_sentence(table: pd.DataFrame) -> str:
    """Return a sentence on the tails of the fastest orders; empty if none is longer than a tenth.

    ``table`` is that of `winners`.
    """
    if not len(table):
        return ""
    long = table[table["tail_share"].fillna(0.0) > NOTED_TAIL]
    if not len(long):
        return ""
    where = "" if len(table) == 1 else f" in {len(long)} of {len(table)} cases"
    share, rate = long["tail_share"], long["throughput_without_tail_tok_s"]
    return (
        f"A tail of a few long requests takes {_span(share, '{:.0%}')} of the fastest order's "
        f"makespan{where}; without it, the rate is {_span(rate, '{:,.0f}')} tokens/s. More "
        "requests make the tail a smaller share."
    )


def _span(values: "pd.Series[float]", text: str) -> str:
    """Return the range of some values in words."""
    low, high = text.format(values.min()), text.format(values.max())
    return low if low == high else f"{low} to {high}"


def winners_markdown(table: pd.DataFrame) -> list[str]:
    """Return the table of `winners` as Markdown lines, one per setting and workload."""
    columns = _columns(table)
    rows = list(zip(*(column.values for column in columns), strict=True))
    align = "".join("l" if column.is_text else "r" for column in columns)
    return markdown_table([column.head for column in columns], rows, align)


def winners_table(table: pd.DataFrame, width: int) -> "Table":
    """Return the table of `winners` for a terminal; what all settings have in common is its title.

    ``width`` is that of the terminal.
    """
    columns = _columns(table)
    title = None
    if columns[0].head == "setting":
        common, own = common_and_own(columns[0].values)
        columns[0] = replace(columns[0], values=own, folds=True)
        title = f"All: {common}" if common else None
    found = text_table(columns, width, leave_out_first=("of optimum",))
    found.title, found.title_justify = title, "left"
    return found


def common_and_own(settings: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return what all settings have in common, and the rest of each; see `setting_labels`.

    >>> common_and_own(("llama on a100, vllm, tp=1", "llama on a100, vllm, tp=2"))
    ('llama on a100, vllm', ('tp=1', 'tp=2'))
    """
    parts = [setting.split(", ") for setting in settings]
    common = [part for part in parts[0] if all(part in other for other in parts)]
    own = [", ".join(part for part in other if part not in common) for other in parts]
    return ", ".join(common), tuple(own)


def _columns(table: pd.DataFrame) -> list[TextColumn]:
    """Return the columns to show; the setting is one of them if there are several."""
    columns = [TextColumn(name, tuple(table[name]), True) for name in ("workload", "fastest")]
    if table["setting"].nunique() > 1:
        columns.insert(0, TextColumn("setting", tuple(table["setting"]), True))
    columns.append(TextColumn("tokens/s", tuple(f"{rate:,.0f}" for rate in table["tokens_s"])))
    for name in BASELINES:
        if f"over_{name}" in table:
            ratios = table[f"over_{name}"]
            texts = ("-" if ratio != ratio else f"{ratio:.3f}x" for ratio in ratios)
            columns.append(TextColumn(f"over {name}", tuple(texts)))
    for name in SHARES:
        head = name.removeprefix("share_").replace("_", " ")
        columns.append(TextColumn(head, tuple(f"{share:.1%}" for share in table[name])))
    return columns
