"""Predicted steps beside sums of NVIDIA's operator tables: the aims of the cost models."""

import numpy as np
import pytest

from bssim.cost_models.silicon import has_tables
from bssim.experiments.costs import RequestGroup
from bssim.experiments.result_pages.whole_steps import WholeStep, as_markdown, whole_steps


@pytest.mark.skipif(not has_tables("a100-80gb"), reason="needs aiconfigurator-core")
def test_whole_steps_are_those_of_the_tables() -> None:
    steps = whole_steps()
    assert len(steps) == 24
    for name, median in (("silicon", 0.02), ("roofline", 0.05)):
        errors = np.array([step.error(name) for step in steps])
        assert np.median(np.abs(errors)) <= median
    bias = np.mean([step.error("silicon") for step in steps])
    assert -0.01 <= bias <= 0.01


def test_the_table_says_what_was_summed() -> None:
    step = WholeStep(
        "gpu",
        RequestGroup(1, 512),
        RequestGroup(8, 64),
        0.010,
        {"roofline": 0.011, "silicon": 0.0099},
    )
    text = as_markdown([step])
    assert "| prefill 1x512 + decode 8x64 | gpu | 10.00 | +10.0% | -1.0% |" in text
    assert "`silicon`: median 1.0%, mean -1.0%" in text
