"""The speed-ups of the orders that `bssim compare` ranks."""

from matplotlib.figure import Figure

from bssim.experiments.batch import OWN, Comparison, OrderResult
from bssim.experiments.plots.heading import head
from bssim.experiments.plots.style import SINGLE_IN, new_figure, scheduler_colour, styled
from bssim.wording import counted


def comparison_figure(found: Comparison) -> Figure:
    """Draw the speed-up of each order over the file's own, with its range over scenarios."""
    orders = list(found.orders)[::-1]
    with styled():
        figure = new_figure(SINGLE_IN, 0.6 + 0.17 * len(orders))
        axes = figure.add_subplot()
        for y, order in enumerate(orders):
            axes.barh(
                y,
                order.speedup,
                color=scheduler_colour(order.scheduler),
                hatch="////" if order.mode == "run_time" else "",
                edgecolor="white",
            )
            axes.annotate(
                f"{order.speedup:.2f}x",
                (0, y),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=6,
                bbox={"fc": "white", "ec": "none", "pad": 0.6},
            )
            if len(order.scenarios) > 1:
                spread = order.scenarios.values()
                axes.plot([min(spread), max(spread)], [y, y], color="black", linewidth=1)
        axes.axvline(1.0, color="black", linewidth=0.6)
        axes.set_yticks(range(len(orders)), [_label(order) for order in orders])
        label = "speed-up over the file's own order"
        if len(found.own.scenarios) > 1:
            label += "\n(line: range with other output lengths)"
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        head(figure, found.verdict.removesuffix("."), _conditions(found))
    return figure


def _conditions(found: Comparison) -> str:
    """Return model, GPUs, engine, cost model, lengths and size, as in figures of sweeps."""
    said = {one.name: one.value for one in found.assumed}
    gpus = f"{found.gpus} x " if found.gpus > 1 else ""
    place = f"{said['model']} on {gpus}{said['hardware']}"
    model = f"{said['cost_model']} cost model"
    return ", ".join(
        [
            *(place, str(said["engine"]), model, f"lengths: {said['lengths']}"),
            counted(found.num_requests, "request"),
        ]
    )


def _label(order: OrderResult) -> str:
    """Return the name of an order in figures."""
    name = "your order" if order.scheduler == OWN else order.scheduler
    return name if order.mode == "file" else f"{name}, run time"
