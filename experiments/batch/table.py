"""A comparison as a ranked table and a list of assumptions."""

from typing import TYPE_CHECKING

from bssim.experiments.batch.assumptions import Assumptions
from bssim.experiments.batch.comparison import OWN, Comparison, OrderResult, duration, money

if TYPE_CHECKING:
    from rich.table import Table

MODES = {"file": "file", "run_time": "run time"}


def comparison_table(found: Comparison) -> "Table":
    """Return all orders, fastest first, as a table for the terminal."""
    from rich import box
    from rich.table import Table

    # Two spaces between columns, so that the widest table fits into 120 columns.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("order", no_wrap=True)
    table.add_column("as", no_wrap=True)
    priced = found.price_per_gpu_hour is not None
    heads = ["time", "tokens/s", "sharing", "of bound", "GPU-hours"]
    for head in [*heads, *(["saved"] if priced else []), "speed-up"]:
        table.add_column(head, justify="right", no_wrap=True)
    if len(found.own.scenarios) > 1:
        table.add_column("other lengths", justify="right", no_wrap=True)
    for order in found.orders:
        row = [
            "your order" if order.scheduler == OWN else order.scheduler,
            MODES[order.mode],
            f"{'~' if order.sampled else ''}{duration(order.makespan_s)}",
            f"{order.throughput_tok_s:,.0f}",
            f"{order.sharing:.0%}",
            f"{order.share_of_bound:.0%}",
            f"{found.gpu_hours(order):,.2f}",
        ]
        if priced:
            row.append(money(found.saved(order) or 0.0))
        row.append(f"{order.speedup:.2f}x")
        if len(found.own.scenarios) > 1:
            row.append(_range(order))
        chosen = order is found.choice
        table.add_row(*row, style="bold" if chosen else None)
    return table


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
