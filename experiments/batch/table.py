"""A comparison as a ranked table and a list of assumptions."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bssim.experiments.batch.assumptions import Assumptions
from bssim.experiments.batch.comparison import OWN, Comparison, OrderResult, duration, money
from bssim.experiments.text_table import TextColumn, text_table

if TYPE_CHECKING:
    from rich.table import Table

MODES = {"file": "file", "run_time": "run time"}
LEAVE_OUT_FIRST = ("GPU-hours", "tokens/s", "sharing", "of bound")
"""Columns without which a narrow terminal still shows why the verdict is what it is."""


def comparison_table(found: Comparison, width: int | None = None) -> "Table":
    """Return all orders, fastest first, as a table of at most ``width`` columns if that can be."""
    orders = found.orders

    def column(head: str, values: Iterable[str], is_text: bool = False) -> TextColumn:
        return TextColumn(head, tuple(values), is_text)

    columns = [
        column(
            "order", ("your order" if o.scheduler == OWN else o.scheduler for o in orders), True
        ),
        column("as", (MODES[o.mode] for o in orders), True),
        column("time", (f"{'~' if o.sampled else ''}{duration(o.makespan_s)}" for o in orders)),
        column("tokens/s", (f"{o.throughput_tok_s:,.0f}" for o in orders)),
        column("sharing", (f"{o.sharing:.0%}" for o in orders)),
        column("of bound", (f"{o.share_of_bound:.0%}" for o in orders)),
        column("GPU-hours", (f"{found.gpu_hours(o):,.2f}" for o in orders)),
    ]
    if found.price_per_gpu_hour is not None:
        columns.append(column("saved", (money(found.saved(o) or 0.0) for o in orders)))
    columns.append(column("speed-up", (f"{o.speedup:.2f}x" for o in orders)))
    if len(found.own.scenarios) > 1:
        columns.append(column("other lengths", map(_range, orders)))
    chosen = next(place for place, order in enumerate(orders) if order is found.choice)
    return text_table(columns, width, leave_out_first=LEAVE_OUT_FIRST, bold_row=chosen)


def _range(order: OrderResult) -> str:
    """Return the range of the speed-ups in the scenarios other than the main one."""
    others = list(order.scenarios.values())[1:]
    if not others:
        return "-"
    low, high = f"{min(others):.2f}", f"{max(others):.2f}"
    return f"{low}x" if low == high else f"{low}-{high}x"


def assumption_lines(assumed: Assumptions) -> list[str]:
    """Return one line per assumption: name, value and origin."""
    return [f"{one.name}: {one.value} ({one.origin})" for one in assumed]
