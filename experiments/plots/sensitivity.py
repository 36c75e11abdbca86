"""Speed-ups by cost model and overlap: one panel per cost model, one line per workload."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bssim.experiments.plots.heading import head, ratio_range
from bssim.experiments.plots.style import DOUBLE_IN, SCHEDULER_COLOURS, new_figure, styled

_COLOURS = [SCHEDULER_COLOURS[name] for name in ("blendserve", "dfs", "ratio", "lpm", "random")]
_MARKERS = "os^Dv"


def sensitivity_figure(table: pd.DataFrame, conditions: str = "") -> Figure:
    """Return the figure for `bssim.experiments.result_pages.sensitivity.speedups`, without NaN."""
    cost_models = list(dict.fromkeys(table.index.get_level_values("cost_model")))
    with styled():
        figure = new_figure(DOUBLE_IN, 2.4)
        panels = figure.subplots(1, len(cost_models), sharey=True, squeeze=False)[0]
        for axes, cost_model in zip(panels, cost_models, strict=True):
            part = table.xs(cost_model, level="cost_model")
            for i, workload in enumerate(part.columns):
                axes.plot(
                    range(len(part)),
                    part[workload],
                    color=_COLOURS[i % len(_COLOURS)],
                    marker=_MARKERS[i % len(_MARKERS)],
                    markersize=3,
                    label=workload,
                )
            axes.axhline(1.0, color="black", linewidth=0.6, linestyle=":")
            axes.set_xticks(range(len(part)), list(part.index), rotation=40, ha="right")
            axes.set_title(cost_model)
        panels[0].set_ylabel("throughput, blendserve / dfs")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        found = table.to_numpy(dtype=float).ravel()
        if np.isfinite(found).any():
            message = f"blendserve is {ratio_range(found)} as fast as dfs"
            head(figure, f"{message}, over all cost models, overlaps and traces", conditions)
    return figure
