"""`bssim calibrate`: what is refused, and files that a simulation can use."""

import csv
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from bssim.backends import ReplayResult
from bssim.backends.profiling import AllReducePlan, OverlapPlan, Pair, SizePlan
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import Precision
from bssim.cost_models.overlap import FrontierOverlap, GammaOverlap, parse_overlap
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.step_cost import StepCost
from bssim.errors import InputError
from bssim.experiments.calibration import MachineOptions, calibrate_machine, predicted_errors
from bssim.experiments.calibration.machine import base_of
from bssim.experiments.cli import main
from tests.conformance.compare import HARDWARE, LLM
from tests.experiments.test_validation import CONFIG, machine

ROOT = Path(__file__).parents[2]
HAS_TORCH = importlib.util.find_spec("torch") is not None
TINY = ROOT / "configs" / "validate" / "tiny-llama"


@pytest.fixture
def replays() -> list[ReplayResult]:
    model = RooflineCostModel(LLM, HARDWARE)
    return [machine(CONFIG.pool(seed), "fcfs", model, dtype="bfloat16")[2] for seed in (1, 2)]


def run(capsys: pytest.CaptureFixture[str], *arguments: object, expect: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["calibrate", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (exit_.value.code or 0) == expect, err
    return out, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected --operators, --overlap or both; or --from-replay FILE"),
        (("--from-replay", "--operators", "x.json"), "expected --operators"),
        (("--overlap", "x.json"), "found 'x.json' with --overlap alone"),
        (("--from-replay",), "found no replays; expected at least one"),
        (("--from-replay", "none.json"), "none.json"),
        (("--operators", "-o", "profile.json"), "--out: found 'profile.json'"),
        (("--operators", "--dtype", "int8"), "--dtype: found 'int8'; expected bfloat16, or on a"),
        (("--operators", "--dtype", "float32", "--device", "cuda"), "--dtype: found 'float32'"),
        (("--operators", "--model", "lama-3-8b"), "did you mean 'llama-3-8b'"),
        (("--operators", "--device", "tpu"), "--device: found 'tpu'; expected 'cpu' or 'cuda'"),
        (("--overlap",), "--overlap: found --device cpu; expected cuda"),
        (
            ("--overlap", "--all-reduce", "2"),
            "--all-reduce: found 2 without --operators; expected both",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    out, err = run(capsys, *arguments, expect=2)
    assert (out, err.count("\n")) == ("", 1)
    assert message in err


@pytest.mark.skipif(HAS_TORCH, reason="torch is installed")
@pytest.mark.parametrize(
    "arguments", [("--operators",), ("--operators", "--overlap", "--device", "cuda")]
)
def test_without_torch_the_error_names_the_extra(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    _, err = run(capsys, *arguments, expect=2)
    assert "package torch is not installed; expected it from `pip install 'bssim[torch]'`" in err


def test_replays_become_a_cost_model_that_simulate_takes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    replays: list[ReplayResult],
) -> None:
    found = {Path(f"{i}.json"): replay for i, replay in enumerate(replays)}
    monkeypatch.setattr("bssim.backends.read_replay", found.__getitem__)
    out = tmp_path / "fitted.yaml"
    printed, _ = run(capsys, "--from-replay", *found, "-o", out, "--json")
    facts = json.loads(printed)
    assert facts["cost_model"] == str(out)
    assert [abs(error["total"]) < 0.01 for error in facts["held_out"]] == [True, True]
    printed, _ = run(capsys, "--from-replay", *found, "-o", out)
    assert printed.startswith("cpu-1, fcfs: ")
    simulate = ("simulate", "-w", "trace1", "-s", "dfs", "-n", "200", "--engine", "vllm", "--json")
    with pytest.raises(SystemExit):
        main([*simulate, "--cost-model", f"fitted:{out}"])
    row = json.loads(capsys.readouterr().out)
    assert row["cost_model"] == f"fitted:{out}"
    # The machine takes 3 ms a step and 20 us a token, and something for the context.
    tokens = row["prompt_tokens"] * (1 - row["sharing"]) + row["output_tokens"] - 200
    least = 3e-3 * row["steps"] + 2e-5 * tokens
    assert least < 1.01 * row["makespan_s"] < 1.5 * least
    with pytest.raises(SystemExit):
        main(["costs", "--decode", "4x100", "--cost-model", f"fitted:{out}", "--json"])
    assert json.loads(capsys.readouterr().out)["operators"][0]["provenance"].startswith("measured")


def test_operators_predict_a_replay_of_the_machine_they_were_measured_on(
    replays: list[ReplayResult],
) -> None:
    llm = replace(LLM, precision=Precision("bfloat16"))
    truth = np.asarray(RooflineCostModel(llm, HARDWARE).step_cost(replays[0].work()).sequential_s)
    steps = [
        {**row, "seconds": 1.25 * float(s)}  # a quarter of host time on top
        for row, s in zip(replays[0].steps, truth, strict=True)
    ]
    (error,) = predicted_errors(llm, HARDWARE, [replace(replays[0], steps=steps)])
    assert error.total == pytest.approx(1 / 1.25 - 1)
    assert error.median == pytest.approx(0.2)
    assert error.as_text().endswith("total -20.0%, steps median 20.0%, p90 20.0%")
    with pytest.raises(InputError, match="found dtype 'bfloat16'; expected float32 as --dtype"):
        predicted_errors(replace(llm, precision=Precision("float32")), HARDWARE, replays)


class KnownGpu:
    """gamma 0.3, whatever is run on it."""

    def seconds(self, pair: Pair, gemms: int, attentions: int) -> float:
        alone = StepCost(gemms * 1e-3, attentions * pair.context * 1e-6, 0.0, 0.0, 0.0)
        return float(np.asarray(GammaOverlap(0.3).step_seconds(alone)))


@pytest.fixture
def gpu_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch report an H100; it cannot compute anything."""
    cuda = SimpleNamespace(
        is_available=lambda: True, get_device_name=lambda: "NVIDIA H100 80GB HBM3"
    )
    torch: Any = SimpleNamespace(
        __version__="2.11.0", cuda=cuda, version=SimpleNamespace(cuda="13.0")
    )
    monkeypatch.setitem(sys.modules, "torch", torch)


def test_overlap_alone_is_a_hardware_file_with_its_evidence(
    tmp_path: Path, gpu_torch: None
) -> None:
    out = tmp_path / "h100-sxm" / "llama-3-8b.yaml"
    grid = OverlapPlan(rows=(512,), ratios=(0.5, 1.0, 2.0))
    found = calibrate_machine(
        MachineOptions(model="llama-3-8b", device="cuda", command="bssim calibrate --overlap"),
        out,
        operators=False,
        overlap=True,
        grid=grid,
        runner=KnownGpu(),
    )
    hardware = load_hardware(out)
    assert hardware.flops == load_hardware("h100-sxm").flops
    assert hardware.corun is not None
    balanced = StepCost(1.0, 1.0, 0.0, 0.0, 0.0)
    frontier = parse_overlap("frontier", hardware.corun)
    assert float(np.asarray(frontier.step_seconds(balanced))) == pytest.approx(1.3, rel=0.02)
    assert float(np.asarray(FrontierOverlap().step_seconds(balanced))) == pytest.approx(1.5)
    assert "published: mean +" in found.as_text()
    assert "perfect: mean -" in found.as_text()
    assert found.as_dict()["overlap"]["held_out_error"]["perfect"]["mean"] < -0.1
    measurement = yaml.safe_load(out.read_text())["measurement"]
    assert measurement["device"] == "NVIDIA H100 80GB HBM3"
    assert measurement["command"] == "bssim calibrate --overlap"
    with out.with_suffix(".overlap.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3 * 7  # batches x ratios x repetitions
    assert {row["held_out"] for row in rows} == {"True", "False"}


def test_a_device_without_a_spec_needs_a_base() -> None:
    assert base_of("cpu", "any") == "cpu"
    assert base_of("cuda", "NVIDIA A100-SXM4-80GB") == "a100-80gb"
    assert base_of("cuda", "NVIDIA H100 PCIe") == "h100-pcie"
    with pytest.raises(InputError, match="--base: found no shipped spec for 'NVIDIA T4'"):
        base_of("cuda", "NVIDIA T4")


@pytest.mark.torch
def test_operators_of_this_cpu_become_a_hardware_file(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    sizes = SizePlan(
        rows=(1, 64), held_out_rows=(8,), requests=(1, 4), tokens=(16, 64), held_out_tokens=(32,)
    )
    options = MachineOptions(model=str(TINY), dtype="float32", repeats=3, clock="process")
    found = calibrate_machine(options, out, sizes=sizes)
    assert found.operators is not None
    assert found.as_dict()["all_reduce"] is None
    assert "all-reduce: not measured, only one device; links as cpu: " in found.as_text()
    hardware = load_hardware(out)
    assert hardware.flops == pytest.approx(found.operators.flops, rel=1e-3)
    assert "float32" in hardware.sources["gemm"]
    assert hardware.memory_bytes == load_hardware("cpu").memory_bytes
    lines = out.with_suffix(".operators.csv").read_text().splitlines()
    assert lines[0] == "kind,sizes,held_out,repetition,seconds"
    copies, gemms, elementwise, attention = 1, 5 * 3, 9, 2 * 2 * 3
    kernels = {"embedding", "norm", "rotary_embedding", "kv_write", "activation", "sampling"}
    assert len(lines) == 1 + 3 * (copies + gemms + elementwise + 2 * len(kernels) + attention)
    assert kernels <= set(found.as_dict()["operators"]["held_out_error"])


@pytest.mark.torch
def test_processes_of_this_cpu_become_links(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    sizes = SizePlan(
        rows=(1, 64), held_out_rows=(8,), requests=(1, 4), tokens=(16, 64), held_out_tokens=(32,)
    )
    options = MachineOptions(model=str(TINY), dtype="float32", repeats=3, all_reduce=2)
    found = calibrate_machine(
        options, out, sizes=sizes, messages=AllReducePlan((1, 64, 4096), (512,))
    )
    facts = found.as_dict()["all_reduce"]
    hardware = load_hardware(out)
    assert hardware.link_bandwidth == pytest.approx(facts["link_bandwidth"], rel=1e-3)
    assert hardware.all_reduce.axes["gpus"].tolist() == facts["gpus"] == [2]
    assert hardware.sources["all_reduce"].startswith("measured: ")
    assert "links, among 2: " in found.as_text()
    assert yaml.safe_load(out.read_text())["measurement"]["all_reduce"] == "gloo, [2] processes"
    lines = out.with_suffix(".operators.csv").read_text().splitlines()
    assert sum(line.startswith("all_reduce,2x") for line in lines) == 4 * 3


def test_a_gpu_machine_needs_only_what_it_has(tmp_path: Path) -> None:
    """Calibration runs where simpy and joblib, which simulations and sweeps need, are missing."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('simpy', 'joblib'))); "
        "from bssim.experiments.cli import main; main(['calibrate', '--overlap'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--overlap: found --device cpu" in done.stderr
