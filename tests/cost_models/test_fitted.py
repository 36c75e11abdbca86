import resource
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from bssim.cost_models.fitted import FittedCostModel, concatenate, fit
from bssim.cost_models.fitting import write_hardware
from bssim.cost_models.step_cost import StepWork
from bssim.errors import InputError


def steps(count: int, seed: int = 0) -> StepWork:
    rng = np.random.default_rng(seed)
    decodes = rng.integers(0, 200, count).astype(float)
    chunks = rng.integers(0, 3, count).astype(float)
    prefill = chunks * rng.integers(1, 900, count)
    context = chunks * rng.integers(0, 2000, count)
    return StepWork(
        decode_requests=decodes,
        decode_context_tokens=decodes * rng.integers(10, 900, count),
        prefill_requests=chunks,
        prefill_tokens=prefill,
        prefill_context_tokens=context,
        prefill_attention_pairs=prefill * context + prefill**2 / 2,
        sampled_tokens=decodes + (chunks > 0),
    )


def seconds(work: StepWork) -> np.ndarray:
    tokens = np.asarray(work.tokens)
    return np.asarray(
        0.004
        + np.maximum(0.006, 2.5e-5 * tokens)  # weights bound small steps, FLOPs large ones
        + 3e-8 * np.asarray(work.decode_context_tokens)
        + 2e-9 * np.asarray(work.prefill_attention_pairs)
    )


def test_a_weight_bound_engine_is_recovered_on_other_steps():
    model = fit(steps(600), seconds(steps(600)), "synthetic")
    other = steps(300, seed=1)
    predicted = np.asarray(model.step_cost(other).sequential_s)
    assert np.max(np.abs(predicted / seconds(other) - 1)) < 0.05
    assert abs(predicted.sum() / seconds(other).sum() - 1) < 0.005


def test_pauses_of_the_machine_do_not_bend_the_fit():
    work, truth = steps(600), seconds(steps(600))
    noisy = truth.copy()
    noisy[::50] += 0.5
    predicted = np.asarray(fit(work, noisy, "synthetic").step_cost(work).sequential_s)
    assert predicted.sum() == pytest.approx(noisy.sum(), rel=1e-6)  # yet they are in the total
    assert np.std(predicted - truth) < 0.1 * np.std(noisy - truth)


def test_more_work_never_costs_less():
    model = fit(steps(200), seconds(steps(200)), "synthetic")
    assert min(model.coefficients.values()) >= 0
    half = steps(50, seed=3)
    whole = StepWork(**{f.name: 2 * np.asarray(getattr(half, f.name)) for f in fields(StepWork)})
    more = np.asarray(model.step_cost(whole).sequential_s)
    assert (more >= np.asarray(model.step_cost(half).sequential_s)).all()


def test_the_ideal_bounds_any_batching_of_the_measured_sizes():
    work = steps(400)
    model = fit(work, seconds(work), "synthetic")
    ideal = float(np.asarray(model.ideal_cost(work.total()).sequential_s))
    spent = float(np.sum(np.asarray(model.step_cost(work).sequential_s)))
    assert 0.3 * spent < ideal <= spent


def test_operators_add_up_to_the_step():
    work = steps(1).total()
    model = fit(steps(200), seconds(steps(200)), "synthetic")
    parts = sum(operator.seconds for operator in model.operators(work))
    assert parts == pytest.approx(float(model.step_cost(work).sequential_s))


def test_written_and_read_again(tmp_path: Path):
    work = steps(100)
    model = fit(work, seconds(work), "synthetic")
    model.write(tmp_path / "m.yaml")
    again = FittedCostModel.read(tmp_path / "m.yaml")
    assert again.coefficients == pytest.approx(model.coefficients)
    assert (again.provenance, again.max_tokens) == (model.provenance, model.max_tokens)


def write_fitted(path: Path) -> None:
    FittedCostModel({"fixed": 0.01, "tokens": 1e-5}, "synthetic", 100).write(path)


def write_gpu(path: Path) -> None:
    write_hardware(path, base="h100-sxm", measurement={"device": "one"}, sections=[])


@pytest.mark.parametrize("write", [write_fitted, write_gpu])
def test_a_full_disk_leaves_the_earlier_calibration(write: Callable[[Path], None], tmp_path: Path):
    path = tmp_path / "m.yaml"
    write(path)
    whole = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"m\.yaml"):
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("name: cpu", "expected `cost_model: fitted`"),
        ("cost_model: fitted\nseconds_per: {tokens: -1}", "seconds_per.tokens: found -1"),
        ("cost_model: fitted\nseconds_per: {token: 1}", "seconds_per.token: found 1"),
        ("cost_model: fitted\nseconds_per: {fixed: .inf}", "seconds_per.fixed: found inf"),
        ("cost_model: fitted\nseconds_per: {fixed: true}", "seconds_per.fixed: found True"),
        ("cost_model: fitted\nseconds_per: 3", "seconds_per: found 3; expected seconds of one"),
        ("cost_model: fitted", "seconds_per: found None; expected seconds of one"),
        (
            "cost_model: fitted\nmax_tokens: 0\nseconds_per: {fixed: 1}",
            "max_tokens: found 0; expected at least 1",
        ),
        ("cost_model: 2020-13-45", "not valid YAML"),
        (
            f"cost_model: fitted\nseconds_per: {{fixed: {10**400}}}",
            "seconds_per.fixed: found 1000.*expected a number",
        ),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        FittedCostModel.read(tmp_path / "m.yaml")
    with pytest.raises(InputError, match="expected a fitted cost model"):
        FittedCostModel.read(tmp_path / "none.yaml")


def test_too_few_steps_are_refused():
    with pytest.raises(InputError, match="found 5 measured steps"):
        fit(steps(5), seconds(steps(5)), "synthetic")


def test_concatenate_keeps_every_step():
    both = concatenate([steps(10), steps(20, seed=1)])
    assert len(np.asarray(both.decode_requests)) == 30
    assert np.asarray(both.padding_tokens).shape == (30,)


def test_the_ideal_bounds_steps_larger_than_any_measured():
    model = FittedCostModel({"fixed": 0.02, "tokens": 1e-5}, "test", max_tokens=2048.0)
    work = StepWork(0.0, 0.0, 1.0, 8192.0, 0.0, 0.0, 1.0)
    ideal = float(np.asarray(model.ideal_cost(work).sequential_s))
    assert ideal == pytest.approx(float(np.asarray(model.step_cost(work).sequential_s)))
    assert sum(o.seconds for o in model.operators(work)) == pytest.approx(ideal)


def test_where_reading_a_cached_prefix_costs_more_than_computing_it_the_ideal_computes_it():
    model = FittedCostModel({"prefill_context_tokens": 1e-3, "tokens": 1e-5}, "noise", 64.0)
    read = StepWork(prefill_requests=1, prefill_tokens=1, prefill_context_tokens=9)
    computed = StepWork(prefill_requests=1, prefill_tokens=10)
    ideal = float(np.asarray(model.ideal_cost(read).sequential_s))
    assert ideal <= float(np.asarray(model.step_cost(computed).sequential_s)) * (1 + 1e-12)
