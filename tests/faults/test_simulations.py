"""A share of the random simulations; `python -m tests.faults.simulations` runs all."""

from tests.faults.simulations import simulations


def test_random_simulations_beat_no_bound_and_repeat_when_recorded() -> None:
    counts, wrong = simulations(cases=300, seed=1)
    assert wrong == []
    assert counts["simulated"] > 100
