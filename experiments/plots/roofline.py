"""The roofline of a device, with the operators of one step."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bssim.experiments.costs import StepReport

# The palette of Okabe and Ito, which is safe for all kinds of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def roofline_figure(report: "StepReport") -> "Figure":
    """Return attained FLOP/s over arithmetic intensity (FLOP per HBM byte), on log axes.

    The roof is the peak of one GPU. The distance of an operator from the roof shows its efficiency,
    and its area shows its share of the step.
    """
    from matplotlib.figure import Figure

    hardware = report.hardware
    shown = [cost for cost in report.operators if cost.flops > 0 and cost.bytes > 0]
    intensity = np.array([cost.flops / cost.bytes for cost in shown])
    rate = np.array([cost.flops / cost.seconds for cost in shown]) / 1e12
    ridge = hardware.flops / hardware.bandwidth

    figure = Figure(figsize=(5.0, 3.4), layout="constrained")
    axes = figure.subplots()
    left, right = min(intensity.min(), ridge) / 3, max(intensity.max(), ridge) * 3
    roof = np.geomspace(left, right, 200)
    peak = np.minimum(hardware.flops, roof * hardware.bandwidth) / 1e12
    axes.plot(roof, peak, color="#555555", linewidth=1.2)
    axes.annotate(
        f"{hardware.flops / 1e12:.0f} TFLOP/s, {hardware.bandwidth / 1e12:.2f} TB/s",
        (right, hardware.flops / 1e12),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        fontsize=7,
        color="#555555",
    )
    for index, (cost, x, y) in enumerate(zip(shown, intensity, rate, strict=True)):
        axes.scatter(
            x,
            y,
            s=25 + 275 * cost.seconds / report.step_s,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            alpha=0.85,
            linewidths=0.5,
            edgecolors="white",
            label=f"{cost.name} ({cost.seconds / report.step_s:.0%})",
            zorder=3,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(top=hardware.flops / 1e12 * 2.5)
    axes.set_xlabel("arithmetic intensity (FLOP / byte)")
    axes.set_ylabel("attained TFLOP/s per GPU")
    axes.set_title(
        f"{report.llm.name}, {report.hardware.name}, {report.cost_model}: "
        f"{1e3 * report.step_s:.1f} ms per step",
        fontsize=9,
    )
    legend = axes.legend(fontsize=7, loc="lower right", frameon=False)
    for handle in legend.legend_handles:
        handle.set_sizes([30])  # type: ignore[union-attr]
    axes.grid(True, which="major", linewidth=0.3, alpha=0.5)
    return figure
