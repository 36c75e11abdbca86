"""Figures of studies: the numbers drawn are the table's, and a missing one leaves a gap."""

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from bssim.experiments.plots import grouped_bars, heatmaps

COLOURS = {"a": "#112233", "b": "#445566"}
TABLE = pd.DataFrame({"b": [3.0, 4.0], "a": [1.0, float("nan")]}, index=["w1", "w2"])
GRID = pd.DataFrame([[1.1, 1.2], [1.3, float("nan")]], index=[0.8, 1.4], columns=[0.05, 0.45])


def test_bars_stand_in_the_order_of_the_colours_under_their_limits() -> None:
    limits = {"left": pd.Series({"w1": 5.0, "w2": 6.0}), "right": pd.Series({"w1": 5.0, "w2": 6.0})}
    figure = grouped_bars({"left": TABLE, "right": 2 * TABLE}, COLOURS, "rate", limits)
    left, right = figure.axes
    heights = [bar.get_height() for bar in left.patches]
    assert heights == pytest.approx([1.0, float("nan"), 3.0, 4.0], nan_ok=True)
    assert [bar.get_height() for bar in right.patches][2:] == [6.0, 8.0]
    faces = [matplotlib.colors.to_hex(bar.get_facecolor()) for bar in left.patches]
    assert faces == ["#112233", "#112233", "#445566", "#445566"]
    (lines,) = left.collections
    assert [segment[0][1] for segment in lines.get_segments()] == [5.0, 6.0]
    (legend,) = figure.legends
    words = {text.get_text() for text in legend.get_texts()}
    assert words == {"a", "b", "practical optimum"}


def test_grids_share_a_scale_and_the_difference_has_its_own_around_zero() -> None:
    other = GRID + 0.2
    figure = heatmaps({"ours": GRID, "paper": other}, "d", "s", ("ours - paper", GRID - other))
    ours, paper, difference = figure.axes[:3]
    assert [t.get_text() for t in ours.texts] == ["1.10", "1.20", "1.30"]
    assert [t.get_text() for t in difference.texts] == ["-0.20"] * 3
    for axes in (ours, paper):
        assert axes.images[0].get_clim() == pytest.approx((1.1, 1.5))
    low, high = difference.images[0].get_clim()
    assert low == -high
    assert [t.get_text() for t in ours.get_xticklabels()] == ["0.05", "0.45"]


def test_a_grid_without_any_result_can_still_be_drawn() -> None:
    figure = heatmaps({"ours": GRID * np.nan}, "d", "s")
    assert len(figure.axes[0].texts) == 0
