"""The scripts in examples/ run as far as that is possible without SLURM and Kubernetes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import bssim

EXAMPLES = Path(__file__).parents[1] / "examples"
SWEEP = "workload: trace1\nschedulers: [fcfs, dfs]\nseeds: [0, 1, 2, 3]\nnum_requests: 50\n"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment with a ``bssim`` command that runs the checkout, and a sweep file."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    command = tmp_path / "bin" / "bssim"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bssim "$@"\n')
    command.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(bssim.__file__).parents[1]),
    }


@pytest.mark.parametrize("script", sorted(EXAMPLES.rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_have_no_syntax_error(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_tasks_of_a_slurm_array_run_every_cell_once(
    environment: dict[str, str], tmp_path: Path
) -> None:
    counts = []
    for task in range(2):
        settings = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2"}
        subprocess.run(
            ["bash", str(EXAMPLES / "slurm" / "sweep.sh")],
            cwd=tmp_path,
            env={**environment, **settings, "SWEEP": "sweep.yaml"},
            check=True,
        )
        counts.append(len(list((tmp_path / "results/sweep/cells").glob("*[0-9a-f].json"))))
    assert counts == [4, 8]


def test_the_kubernetes_job_follows_the_schema() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    job = yaml.safe_load((EXAMPLES / "kubernetes" / "sweep.yaml").read_text())
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    job["spec"]["completionmode"] = job["spec"].pop("completionMode")
    with pytest.raises(kubernetes_validate.ValidationError, match="completionmode"):
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def test_a_pod_of_the_kubernetes_job_runs_its_part(
    environment: dict[str, str], tmp_path: Path
) -> None:
    job: dict[str, Any] = yaml.safe_load((EXAMPLES / "kubernetes" / "sweep.yaml").read_text())
    spec = job["spec"]
    assert (job["kind"], spec["completionMode"], spec["completions"]) == ("Job", "Indexed", 8)
    (container,) = spec["template"]["spec"]["containers"]
    subprocess.run(
        [*container["command"], *container["args"]],
        cwd=tmp_path,
        env={**environment, "JOB_COMPLETION_INDEX": "7"},
        check=True,
    )
    assert len(list((tmp_path / "results/sweep/cells").glob("*[0-9a-f].json"))) == 1


def test_an_own_gpu_and_model_are_read() -> None:
    own = EXAMPLES / "own"
    gpu, model = bssim.load_hardware(own / "gpu.yaml"), bssim.load_model(own / "model.yaml")
    assert (gpu.name, gpu.memory_bytes, gpu.bandwidth) == ("h200-96gb", 96e9, 4e12)
    assert gpu.flops == bssim.load_hardware("h200").flops
    assert model.num_params == 3_606_752_256
