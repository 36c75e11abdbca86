"""Calibration and validation on replays whose true step cost is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bssim.backends import ReplayResult
from bssim.backends.step_work import step_work
from bssim.errors import InputError
from bssim.experiments.calibration import fit_replays, held_out_error
from bssim.experiments.validation import Comparison, Validation, load_validation, write_report
from bssim.experiments.validation.comparison import ranked_alike
from bssim.sim.engine import load_preset
from bssim.sim.result import SimulationResult
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload
from tests.conformance.compare import HARDWARE, LLM

CPU = Path(__file__).parents[2] / "configs" / "validate" / "cpu.yaml"
CONFIG = load_validation(CPU)
ENGINE = replace(load_preset("vllm"), block_size=32, num_gpu_blocks=120, max_num_batched_tokens=256)


def machine(
    pool: Workload, scheduler: str, model: Any, **environment: object
) -> tuple[SimulationResult, list[dict[str, Any]], ReplayResult]:
    """Simulate, and measure on a machine that takes the simulator's steps at known costs."""
    rows: list[dict[str, Any]] = []
    simulated = simulate(
        pool,
        scheduler=scheduler,
        llm=LLM,
        hardware=HARDWARE,
        engine=ENGINE,
        cost_model=model,
        output_lengths="oracle",
        on_step=rows.append,
    )
    prompts = {pool.request_id(i): int(p) for i, p in enumerate(pool.prompt_tokens)}
    work = step_work(rows, prompts)
    seconds = 0.003 + 2e-5 * np.asarray(work.tokens) + 1e-7 * np.asarray(work.decode_context_tokens)
    measured = ReplayResult(
        workload=pool.name,
        workload_digest=pool.digest(),
        scheduler=scheduler,
        num_requests=len(pool),
        engine=ENGINE,
        environment={"engine": "vllm", "device": "known", **environment},
        steps=[
            {**row, "seconds": float(s), "replica": 0, "segment": 0}
            for row, s in zip(rows, seconds, strict=True)
        ],
        requests=[
            {
                "request_id": pool.request_id(i),
                "prompt_tokens": int(pool.prompt_tokens[i]),
                "output_tokens": int(pool.output_tokens[i]),
                "cached_tokens": 0,
                "segment": 0,
                "replica": 0,
            }
            for i in range(len(pool))
        ],
    )
    return simulated, rows, measured


@pytest.fixture(scope="module")
def replays() -> list[ReplayResult]:
    from bssim.cost_models.roofline import RooflineCostModel

    model = RooflineCostModel(LLM, HARDWARE)
    return [machine(CONFIG.pool(seed), "fcfs", model)[2] for seed in (1, 2)]


def test_a_known_machine_is_found_from_its_steps(replays: list[ReplayResult]):
    model, held_out = fit_replays(replays)
    assert [e.part for e in held_out] == ["cpu-1, fcfs", "cpu-2, fcfs"]
    assert max(abs(e.total) for e in held_out) < 0.01
    assert max(e.p90 for e in held_out) < 0.02
    assert "2 replays" in model.provenance


def test_one_replay_is_cut_into_parts(replays: list[ReplayResult]):
    _, held_out = fit_replays(replays[:1])
    assert len(held_out) == 5
    assert sum(e.steps for e in held_out) == len(replays[0].steps)
    assert max(abs(e.total) for e in held_out) < 0.02


def test_replays_of_two_machines_are_not_mixed(replays: list[ReplayResult]):
    other = replace(replays[1], environment={**replays[1].environment, "device": "another"})
    with pytest.raises(InputError, match="device: found 'known' and 'another'"):
        fit_replays([replays[0], other])
    partial = replace(replays[0], requests=replays[0].requests[:3])
    with pytest.raises(InputError, match="expected a complete replay"):
        fit_replays([partial])
    with pytest.raises(InputError, match="found no replays"):
        fit_replays([])


def test_the_report_compares_what_was_simulated_and_measured(
    tmp_path: Path, replays: list[ReplayResult]
):
    model, calibration = fit_replays(replays)
    comparisons = []
    for scheduler in ("fcfs", "dfs"):
        simulated, rows, measured = machine(CONFIG.pool(0), scheduler, model)
        error = held_out_error(scheduler, model, measured.work(), measured.step_s)
        predicted = np.asarray(model.step_cost(measured.work()).sequential_s)
        comparisons.append(Comparison(scheduler, simulated, rows, measured, error, predicted))
    validation = Validation("known", model, calibration, comparisons)
    write_report(validation, tmp_path)
    table = pd.read_csv(tmp_path / "runs.csv")
    assert table["throughput_error"].abs().max() < 0.02
    assert table["speedup_error"].abs().max() < 0.01
    assert (table["first_differing_step"] == -1).all()
    assert ranked_alike(validation.comparisons) == (1, 1)
    report = (tmp_path / "report.md").read_text()
    assert "Steps composed exactly as simulated: 2 of 2" in report
    assert "overlap gains are simulated-only" in report
    assert (tmp_path / "figure.png").stat().st_size > 10_000

    steps = [dict(row) for row in comparisons[1].measured.steps]
    steps[7]["free_blocks"] += 1
    wrong = replace(comparisons[1], measured=replace(comparisons[1].measured, steps=steps))
    assert wrong.first_difference == 7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: cpu", "nam: cpu", "nam: unknown key: found 'nam' .did you mean 'name'"),
        ("schedulers: [fcfs", "schedulers: [fcsf", r"c\.yaml:15: schedulers\[0\]: found 'fcsf'"),
        ("block_size: 32", "block_sise: 32", "block_sise"),
        ("seed: 0", "seed: 1", "seed: found 1 in calibration_seeds too"),
        ("[40, 120]", "[120, 40]", r"sources\[2\].output_tokens: found \[120, 40\]"),
        ("groups: 12", "groups: many", r"sources\[0\].groups: found 'many'"),
        ("model: tiny-llama", "", r"c\.yaml: 'model' is missing"),
        (
            "block_size: 32",
            "block_size: 0",
            r"c\.yaml:11: engine.block_size: found 0; expected at l",
        ),
        ("block_size: 32", "kv_reserve: .nan", r"c\.yaml:11: engine.kv_reserve: found nan"),
        (
            "max_num_seqs: 32",
            "max_num_seqs: .inf",
            r"yaml:14: engine.max_num_seqs: found inf; expec",
        ),
        (
            "max_num_seqs: 32",
            "max_num_seqs: 257",
            r":14: engine.max_num_seqs: found 257 with max_num",
        ),
        ("max_num_seqs: 32", "overlap: gama:1", r"c\.yaml:14: engine.overlap: found 'gama:1'"),
        (
            "requests: 96",
            "requests: 0",
            r"c\.yaml:21: sources\[0\].requests: found 0; expected grea",
        ),
        ("groups: 12", "groups: true", r"c\.yaml:21: sources\[0\].groups: found True"),
        ("name: shared", "name: 5", r"c\.yaml:21: sources\[0\].name: found 5; expected a v"),
        ("seed: 0", "seed: -1", r"c\.yaml:17: seed: found -1; expected greater than or equal to 0"),
        ("[1, 2]", "[1, x]", r"c\.yaml:18: calibration_seeds\[1\]: found 'x'; expected a valid"),
        (
            "dummy_weights: true",
            "dummy_weights: 3",
            r"c\.yaml:5: dummy_weights: found 3; expected a",
        ),
        ("hardware: cpu", "hardware: gpu", r"c\.yaml:9: hardware: found 'gpu'"),
        ("clock: process", "clock: cpu", r"c\.yaml:8: clock: found 'cpu'"),
        (
            "seed: 0",
            "tensor_parallel: 0",
            r"c\.yaml:17: tensor_parallel: found 0; expected greater",
        ),
        ("seed: 0", "output_lengths: orcl", r"c\.yaml:17: output_lengths: found 'orcl' .*'oracle'"),
        ("model: tiny-llama", "model: 2020-13-45", r"c\.yaml: not valid YAML: month must be in"),
    ],
)
def test_wrong_configs_are_named(tmp_path: Path, old: str, new: str, message: str):
    text = CPU.read_text()
    assert old in text
    (tmp_path / "c.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_validation(tmp_path / "c.yaml")


def test_all_committed_configs_can_be_read():
    for path in CPU.parent.glob("*.yaml"):
        config = load_validation(path)
        pool = config.pool(config.seed)
        longest = int((pool.prompt_tokens + pool.output_tokens).max())
        assert config.engine.num_gpu_blocks is not None
        assert longest < config.engine.num_gpu_blocks * config.engine.block_size
        assert (config.model / "config.json").is_file()
