from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.errors import InputError
from bssim.sim.engine import load_preset
from bssim.sim.schedule import (
    Schedule,
    check_precision,
    made_with,
    read_schedule,
    write_schedule,
)
from tests.conformance.pools import grown

POOL = grown([(0, 9)], [(k % 2, 3 + k, 2, 0) for k in range(6)])


def written(folder: Path) -> Path:
    schedule = Schedule(
        workload=POOL.name,
        workload_digest=POOL.digest(),
        scheduler="dfs",
        order=np.array([5, 3, 1, 0, 2, 4]),
        replica=np.array([0, 0, 0, 1, 1, 1], dtype=np.int32),
        estimated_output_tokens=np.arange(6) / 2,
        provenance={"seed": 3},
    )
    write_schedule(folder / "s.jsonl", schedule, POOL)
    return folder / "s.jsonl"


def test_a_schedule_survives_its_file(tmp_path: Path):
    again = read_schedule(written(tmp_path), POOL)
    assert again.order.tolist() == [5, 3, 1, 0, 2, 4]
    assert again.replica.tolist() == [0, 0, 0, 1, 1, 1]
    assert again.estimated_output_tokens.tolist() == (np.arange(6) / 2).tolist()
    assert (again.scheduler, again.provenance) == ("dfs", {"seed": 3})


def test_another_workload_is_refused(tmp_path: Path):
    other = replace(POOL, output_tokens=POOL.output_tokens + 1, name="other")
    with pytest.raises(InputError, match=r"made for workload 'pool'.*that of workload 'other'"):
        read_schedule(written(tmp_path), other)


@pytest.mark.parametrize(
    ("keep", "message"),
    [(3, "found 2 requests.*complete"), (0, "s.jsonl:1: found ''; expected a JSON object")],
)
def test_a_file_cut_between_lines(tmp_path: Path, keep: int, message: str):
    path = written(tmp_path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:keep]))
    with pytest.raises(InputError, match=message):
        read_schedule(path, POOL)


def test_a_file_cut_within_a_line(tmp_path: Path):
    path = written(tmp_path)
    path.write_text(path.read_text()[:-9])
    with pytest.raises(InputError, match=r"s.jsonl:7: found .*expected a JSON object"):
        read_schedule(path, POOL)


def test_a_request_twice_and_what_is_no_schedule(tmp_path: Path):
    path = written(tmp_path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:6], lines[1]]))
    with pytest.raises(InputError, match=r"s.jsonl:7: id: found 'r5'"):
        read_schedule(path, POOL)
    path.write_text('{"a": 1}')
    with pytest.raises(InputError, match="format: found None"):
        read_schedule(path, POOL)
    with pytest.raises(InputError, match="expected a schedule file"):
        read_schedule(tmp_path / "none", POOL)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"estimated_output_tokens": 0.5', '"estimated_output_tokens": NaN', "found nan"),
        ('"estimated_output_tokens": 0.5', '"estimated_output_tokens": Infinity', "found inf"),
        ('"estimated_output_tokens": 0.5', f'"estimated_output_tokens": {10**400}', "found 1000"),
        ('"estimated_output_tokens": 0.5', f'"estimated_output_tokens": {"1" * 5000}', "JSON"),
        ('"replica": 0', f'"replica": {2**31}', "replica: found 2147483648; expected 0 to"),
    ],
)
def test_numbers_out_of_range(tmp_path: Path, old: str, new: str, message: str):
    path = written(tmp_path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        read_schedule(path, POOL)


def test_a_schedule_names_its_precision_and_is_not_served_at_another(tmp_path: Path):
    llm, gpu = load_llm("llama-3-8b", kv_cache_dtype="fp8"), load_hardware("h100-sxm")
    made = made_with(llm, gpu, load_preset("vllm"), make_cost_model("roofline", llm, gpu))
    schedule = read_schedule(written(tmp_path), POOL)
    write_schedule(tmp_path / "s.jsonl", replace(schedule, provenance=made), POOL)
    again = read_schedule(tmp_path / "s.jsonl", POOL)
    assert again.provenance["precision"] == {
        "dtype": "bfloat16",
        "quantization": None,
        "kv_cache_dtype": "fp8",
    }
    check_precision(again, llm)
    with pytest.raises(InputError, match=r"provenance\.precision: found .*'fp8'"):
        check_precision(again, load_llm("llama-3-8b"))
    check_precision(schedule, llm)
