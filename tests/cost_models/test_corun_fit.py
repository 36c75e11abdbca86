"""A co-run frontier fitted to measurements of a machine whose frontier is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bssim.cost_models.fitting import CoRun, fit_corun, write_hardware
from bssim.cost_models.hardware import CoRunPoints, load_hardware
from bssim.cost_models.overlap import FrontierOverlap, parse_overlap
from bssim.cost_models.step_cost import OverlapModel, StepCost
from bssim.errors import InputError

RATIOS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)


def seconds(model: OverlapModel, gemm: float, attention: float) -> float:
    return float(np.asarray(model.step_seconds(StepCost(gemm, attention, 0.0, 0.0, 0.0))))


def machine(model: OverlapModel, spread: float = 0.02) -> list[CoRun]:
    """Return co-runs of a machine that overlaps as ``model`` says, at two sizes."""
    return [
        CoRun(r, size, r * size, seconds(model, size, r * size), spread, held_out=size == 3e-3)
        for size in (1e-3, 3e-3)
        for r in RATIOS
    ]


@pytest.mark.parametrize("name", ["perfect", "sequential", "frontier", "gamma:0.3"])
def test_the_frontier_of_a_known_machine_is_found(name: str) -> None:
    truth = parse_overlap(name)
    fit = fit_corun(machine(truth), "measured: here")
    assert np.abs(fit.errors["fitted"]).max() < 1e-9
    frontier = FrontierOverlap(fit.points)
    for ratio in RATIOS:
        expected = seconds(truth, 2.0, 2.0 * ratio)
        assert seconds(frontier, 2.0, 2.0 * ratio) == pytest.approx(expected)


def test_errors_say_how_far_max_and_the_published_frontier_are() -> None:
    fit = fit_corun(machine(parse_overlap("sequential")), "measured: here")
    at_one = RATIOS.index(1.0)
    assert fit.errors["perfect"][at_one] == pytest.approx(1 / 2 - 1)
    assert fit.errors["published"][at_one] == pytest.approx(1.5 / 2 - 1)
    assert fit.errors["sequential"] == pytest.approx(0.0)
    assert "perfect: mean -3" in fit.error_text("perfect")


@given(
    st.lists(st.tuples(st.sampled_from(RATIOS), st.floats(0.5, 1.3)), min_size=1, max_size=20),
)
def test_any_measurement_gives_a_frontier_between_max_and_sequential(
    measured: list[tuple[float, float]],
) -> None:
    runs = [CoRun(r, 1.0, r, (1 + r) * share, 0.01) for r, share in measured]
    fit = fit_corun([*runs, CoRun(1.0, 1.0, 1.0, 1.5, 0.01, held_out=True)], "measured: here")
    frontier = FrontierOverlap(fit.points)
    for ratio in (0.1, 1.0, 7.0):
        found = seconds(frontier, 1.0, ratio)
        assert max(1.0, ratio) <= found * (1 + 1e-9)
        assert found <= (1 + ratio) * (1 + 1e-9)


def test_the_section_is_read_back_by_the_hardware_file(tmp_path) -> None:
    points = CoRunPoints(((0.7, 0.6),), ((0.8, 0.5),), "known")
    fit = fit_corun(machine(FrontierOverlap(points), spread=0.4), "measured: here")
    assert fit.is_dirty
    path = tmp_path / "gpu.yaml"
    hardware = write_hardware(
        path, base="h100-sxm", measurement={"device": "a GPU"}, sections=[fit.as_yaml()]
    )
    assert hardware.name == "gpu"
    assert hardware.flops == load_hardware("h100-sxm").flops
    assert hardware.corun is not None
    assert "DIRTY" in hardware.corun.source
    assert "median error 0.0%" in hardware.corun.source
    overlap = parse_overlap("frontier", hardware.corun)
    expected = seconds(FrontierOverlap(points), 3.0, 2.25)
    assert seconds(overlap, 3.0, 2.25) == pytest.approx(expected, rel=1e-3)


def test_without_held_out_runs_there_is_no_error_to_tell() -> None:
    runs = [run for run in machine(parse_overlap("frontier")) if not run.held_out]
    with pytest.raises(InputError, match="7 co-runs to fit to and 0 held out"):
        fit_corun(runs, "measured: here")
