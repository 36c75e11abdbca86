"""Figures, one file per kind. `sweep_figures.py` chooses those of a sweep.

To add a figure, write a function here that returns a Matplotlib `Figure` drawn inside `styled()`.
"""

from bssim.experiments.plots.bars import (
    draw_groups,
    grouped_bars,
    sharing_figure,
    throughput_figure,
)
from bssim.experiments.plots.blend import blend_figure
from bssim.experiments.plots.comparison import comparison_figure
from bssim.experiments.plots.heading import (
    conditions_of,
    fastest_message,
    head,
    message_of,
    ratio_range,
    share_range,
)
from bssim.experiments.plots.heatmap import GRID_AXES, heatmaps, speedup_figure
from bssim.experiments.plots.roofline import roofline_figure
from bssim.experiments.plots.scatter import scatter_figure
from bssim.experiments.plots.sensitivity import sensitivity_figure
from bssim.experiments.plots.shares import shares_figure
from bssim.experiments.plots.steps import steps_figure
from bssim.experiments.plots.style import (
    COMPUTE_COLOUR,
    DOUBLE_IN,
    MEMORY_COLOUR,
    SCHEDULER_COLOURS,
    SINGLE_IN,
    SPARE_COLOUR,
    new_figure,
    save,
    scheduler_colour,
    scheduler_order,
    styled,
)
from bssim.experiments.plots.sweep_figures import draw_figures
from bssim.experiments.plots.workload import SOURCE_COLOURS, workload_figure

__all__ = [
    "COMPUTE_COLOUR",
    "DOUBLE_IN",
    "GRID_AXES",
    "MEMORY_COLOUR",
    "SCHEDULER_COLOURS",
    "SINGLE_IN",
    "SOURCE_COLOURS",
    "SPARE_COLOUR",
    "blend_figure",
    "comparison_figure",
    "conditions_of",
    "draw_figures",
    "draw_groups",
    "fastest_message",
    "grouped_bars",
    "head",
    "heatmaps",
    "message_of",
    "new_figure",
    "ratio_range",
    "roofline_figure",
    "save",
    "scatter_figure",
    "scheduler_colour",
    "scheduler_order",
    "sensitivity_figure",
    "share_range",
    "shares_figure",
    "sharing_figure",
    "speedup_figure",
    "steps_figure",
    "styled",
    "throughput_figure",
    "workload_figure",
]
