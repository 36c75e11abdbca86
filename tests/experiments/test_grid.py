"""From a sweep file to cells: what is crossed, what is refused, what the hash covers."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bssim.cost_models.fitted import FittedCostModel
from bssim.cost_models.hardware import EfficiencyCurve, load_hardware
from bssim.cost_models.llm import load_llm
from bssim.errors import InputError
from bssim.experiments.sweeps import Cell, WorkloadRef, expand, read_sweep_file, run_cell
from bssim.sim.engine import load_preset

Cells = Callable[[str], list[Cell]]
BASE = "workloads: trace1\nschedulers: dfs\n"


def test_all_lists_are_crossed_workload_by_workload(cells_of: Cells) -> None:
    cells = cells_of(
        "workloads: [trace1, trace2]\nschedulers: [fcfs, dfs]\nseeds: [0, 1]\n"
        "engine: {preset: nanoflow, max_num_seqs: [256, 512]}\nnum_requests: [100, 200]\n"
    )
    assert len(cells) == 2 * 2 * 2 * 2 * 2
    assert len({cell.config_hash for cell in cells}) == len(cells)
    workloads = [(c.workload.source, c.workload.num_requests) for c in cells]
    assert workloads == sorted(workloads)
    assert [c.scheduler for c in cells[:2]] == ["fcfs", "dfs"]
    assert {c.engine.max_num_seqs for c in cells} == {256, 512}


def test_a_mix_is_a_grid_of_targets_with_names_of_their_own(cells_of: Cells) -> None:
    cells = cells_of(
        "workloads: {name: m, mix: {density: [0.9, 1.1], sharing_target: [0.1, 0.2]}}\n"
        "schedulers: dfs\n"
    )
    assert [cell.workload.name for cell in cells] == [
        *("m-d0.9-s0.1", "m-d0.9-s0.2", "m-d1.1-s0.1", "m-d1.1-s0.2"),
    ]
    targets = [(c.workload.mix.density, c.workload.mix.sharing) for c in cells if c.workload.mix]
    assert targets == [(0.9, 0.1), (0.9, 0.2), (1.1, 0.1), (1.1, 0.2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BASE.replace("dfs", "[fcfs, dffs]"), r":2: schedulers\[1\]: found 'dffs' .*'dfs'"),
        (
            BASE.replace("trace1", "trace9"),
            r":1: workloads: found 'trace9' \(did you mean 'trace4'",
        ),
        (
            BASE.replace("trace1", "[trace1, no.csv]"),
            r":1: workloads\[1\]: found '.*no.csv', but the",
        ),
        (
            BASE.replace("trace1", "{source: ./}"),
            r":1: workloads: found '.*', a folder; expected a t",
        ),
        (
            "schedulers: dfs\nworkloads:\n- mix: {density: 1, sharing_target: 0.1, memory: opnvid}",
            r":3: workloads\[0\].mix.memory: found 'opnvid' \(did you mean 'openvid'\?\)",
        ),
        (BASE + "model: llama-3-8", r":3: model: found 'llama-3-8' .*'llama-3-8b'"),
        (BASE + "hardware: [a100-80g]", r":3: hardware\[0\]: found 'a100-80g' .*'a100-80gb'"),
        (BASE + "engine: nanoflo", r":3: engine: found 'nanoflo' .*'nanoflow'"),
        (BASE + "engine: {preset: vlm}", r":3: engine.preset: found 'vlm' .*'vllm'"),
        (
            BASE + "engine: {preset: [vllm]}",
            r":3: engine.preset: found \['vllm'\]; expected the na",
        ),
        (BASE + "engine: {max_seqs: 4}", r":3: engine.max_seqs: found 'max_seqs' .*'max_num_seqs'"),
        (BASE + "engine: {max_num_seqs: many}", r":3: engine.max_num_seqs: found 'many'; expect"),
        (BASE + "engine: {max_num_seqs: .inf}", r":3: engine.max_num_seqs: found inf; expected an"),
        (BASE + "engine: {max_num_seqs: []}", r":3: engine.max_num_seqs: found an empty list"),
        (
            BASE + "engines:\n- vllm\n- preset: vllm\n  watermark: 0\n  block_size: [16, 0]",
            r":7: engines\[1\].block_size: found 0; expected at least 1",
        ),
        (
            BASE + "engine: {preset: vllm, max_num_batched_tokens: 5}",
            r":3: engine.max_num_seqs: found 256 with max_num_batched_tokens 5; expected",
        ),
        (BASE + "dp: 1000000", r":3: dp: found 1000000; expected less than or equal to 10000"),
        (BASE + "engine: {max_num_seqs: -3}", r":3: engine.max_num_seqs: found -3; expected at le"),
        (BASE + "engine: {overlap: gama:1}", r":3: engine.overlap: found 'gama:1'; expected .*gam"),
        (BASE + "overlap: [perfect, gama:1]", r":3: overlap\[1\]: found 'gama:1'; expected .*gam"),
        (BASE + "overlap: frontier\nengine: {overlap: frontier}", r".*found beside"),
        (BASE + "cost_model: rofline", r":3: cost_models?: .*'roofline'"),
        (BASE + "output_lengths: sample", r":3: output_lengths: .*'sampled'"),
        (BASE + "seeds: [1, 1]", r": the grid holds the same cell twice .*without repeats"),
    ],
)
def test_a_wrong_name_is_answered_with_its_place_and_the_nearest_name(
    cells_of: Cells, tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        cells_of(text)
    message = str(caught.value).removeprefix(f"{tmp_path}/demo.yaml")
    assert re.match(expected, message), message


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{source: t.csv, format: azur}", r":4: workloads\[1\].format: found 'azur' .*'azure'"),
        (
            "{source: t.csv, format: azure}",
            r":4: workloads\[1\].format: found 'azure' for .*t.csv, whose first line has columns "
            r"prompt_tokens, output_tokens; expected also ContextTokens, GeneratedTokens",
        ),
        (
            "{source: t.csv, format: mooncake}",
            r":4: workloads\[1\].format: .*expected also hash_ids",
        ),
        ("{source: trace2, format: azure}", r":4: workloads\[1\].format: .*trace2 is not a file"),
        (
            "{source: trace2, max_prompt_tokens: 9}",
            r":4: workloads\[1\].max_prompt_tokens: found 9",
        ),
        ("{source: demo.yaml}", r":4: workloads\[1\]: .*demo.yaml:1: found columns"),
        ("demo.yaml", r":4: workloads\[1\]: .*demo.yaml:1: found columns"),
        (
            "mix: {density: 1, sharing_target: 0.1, memory: demo.yaml}",
            r":4: workloads\[1\].mix.memory: .*demo.yaml:1: found columns",
        ),
    ],
)
def test_a_wrong_format_is_found_before_anything_runs(
    cells_of: Cells, tmp_path: Path, entry: str, expected: str
) -> None:
    (tmp_path / "t.csv").write_text("\nprompt_tokens,output_tokens\n10,5\n")
    with pytest.raises(InputError) as caught:
        cells_of(f"schedulers: dfs\nworkloads:\n- trace1\n- {entry}\n")
    message = str(caught.value).removeprefix(f"{tmp_path}/demo.yaml")
    assert re.match(expected, message), message
    (fine, *_) = cells_of("schedulers: dfs\nworkloads: {source: t.csv, format: bssim-csv}")
    assert fine.workload.reader.format == "bssim-csv"


def test_two_specs_of_one_name_are_refused(cells_of: Cells, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text("base: a100-80gb\n")
    with pytest.raises(InputError, match=r":3: hardware\[1\]: found the name 'mine', which hard"):
        cells_of(BASE + "hardware: [a/mine.yaml, b/mine.yaml]\n")
    (tmp_path / "b" / "mine.yaml").write_text("base: a100-80gb\nname: other\n")
    cells = cells_of(BASE + "hardware: [a/mine.yaml, b/mine.yaml]\n")
    assert [cell.hardware.name for cell in cells] == ["mine", "other"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{source: a/t.csv}", "{source: b/t.csv}"),
        ("{source: a/t.csv}", "{source: a/t.csv, max_output_tokens: 3}"),
        ("{source: a/t.csv, seed: 1}", "{source: a/t.csv, seed: 2}"),
        (
            "{mix: {density: 1, sharing_target: 0.1}}",
            "{mix: {density: 1, sharing_target: 0.1, compute: azure}}",
        ),
    ],
)
def test_two_workloads_of_one_label_are_refused(
    cells_of: Cells, tmp_path: Path, first: str, second: str
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.csv").write_text("prompt_tokens,output_tokens\n10,5\n")
    with pytest.raises(InputError, match=r":1: workloads: found two workloads with .*name"):
        cells_of(f"workloads: [{first}, {second}]\nschedulers: dfs\n")
    named = second.removesuffix("}") + ", name: other}"
    assert len(cells_of(f"workloads: [{first}, {named}]\nschedulers: dfs\n")) == 2


def test_a_replica_without_requests_leaves_no_timeline(cells_of: Cells) -> None:
    (cell,) = cells_of(BASE + "num_requests: 3\ndp: 5\n")
    outcome = run_cell(cell, timeline=True)
    assert outcome.row["status"] == "ok"
    assert outcome.timeline is not None
    assert set(outcome.timeline["replica"]) == {0, 1, 2}


def test_the_hash_covers_what_decides_the_result_and_nothing_else(cells_of: Cells) -> None:
    (cell,) = cells_of(BASE)
    changed = [
        replace(cell, scheduler="fcfs"),
        replace(cell, seed=1),
        replace(cell, dp=2),
        replace(cell, on_oversize="drop"),
        replace(cell, output_lengths="oracle"),
        replace(cell, engine=replace(cell.engine, max_num_seqs=7)),
        replace(cell, llm=replace(cell.llm, num_layers=cell.llm.num_layers + 1)),
        replace(cell, hardware=replace(cell.hardware, bandwidth=1e12)),
        replace(cell, workload=replace(cell.workload, num_requests=7)),
    ]
    assert len({c.config_hash for c in [cell, *changed]}) == len(changed) + 1
    assert replace(cell, config="other").config_hash == cell.config_hash


@pytest.mark.parametrize("shape", [(3, 4), (40, 50)])  # numpy prints 6 of 40 rows
def test_the_hash_covers_every_digit_of_every_point_of_a_curve(
    cells_of: Cells, shape: tuple[int, int]
) -> None:
    (cell,) = cells_of("workloads: trace1\nschedulers: dfs\n")
    hashes = set()
    for change in (0.0, 1e-3, 1e-12):
        values = np.full(shape, 0.5)
        values[shape[0] // 2, shape[1] // 2] += change
        axes = {"heads": 1.0 + np.arange(shape[0]), "keys": 1.0 + np.arange(shape[1])}
        curve = EfficiencyCurve(axes, values, "test")
        hardware = replace(cell.hardware, prefill_attention=curve)
        hashes.add(replace(cell, hardware=hardware).config_hash)
    assert len(hashes) == 3


def test_the_hash_covers_the_bytes_of_trace_files(cells_of: Cells, tmp_path: Path) -> None:
    (cell,) = cells_of(BASE)
    hashes = set()
    for i, text in enumerate(["a\n1\n", "a\n2\n"]):
        path = tmp_path / f"{i}" / "pool.csv"
        path.parent.mkdir()
        path.write_text(text)
        ref = WorkloadRef(str(path), None, 0)
        hashes.add(tuple(ref.file_digests().values()))
        assert replace(cell, workload=ref).config_hash != cell.config_hash
    assert len(hashes) == 2


def test_a_fitted_cost_model_is_a_file_beside_the_config(tmp_path: Path, cells_of: Cells) -> None:
    text = "workload: trace1\nscheduler: dfs\ncost_models: [roofline, 'fitted:mine.yaml']\n"
    with pytest.raises(
        InputError, match=r"demo.yaml:3: cost_models\[1\]: .*mine.yaml: cannot be read"
    ):
        cells_of(text)
    file = tmp_path / "mine.yaml"
    FittedCostModel({"fixed": 0.001, "tokens": 1e-5}, "measured: here", 512.0).write(file)
    roofline, fitted = cells_of(text)
    assert (roofline.cost_model, fitted.cost_model) == ("roofline", f"fitted:{file}")
    # The content is part of the hash: an edited file is another cell.
    digests = fitted.inputs()["file_digests"]
    assert digests[str(file)] == hashlib.sha256(file.read_bytes()).hexdigest()
    small = replace(fitted, workload=replace(fitted.workload, num_requests=100))
    assert run_cell(small).row["error"] == ""


FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("traces/*.yaml")])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_that_ship_are_valid(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSSIM_TRACES", str(tmp_path))
    for name in re.findall(r"\$BSSIM_TRACES/([\w./-]+)", path.read_text()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        head = '{"hash_ids": []}' if name.endswith("jsonl") else "prompt_tokens,output_tokens"
        (tmp_path / name).write_text(head + "\n")
    assert expand(read_sweep_file(path))


def test_the_quickstart_is_four_traces_under_five_orders_at_full_size() -> None:
    cells = expand(read_sweep_file(FOLDER / "quickstart.yaml"))
    assert len({c.workload.source for c in cells}) == 4
    assert len({c.scheduler for c in cells}) == 5
    assert {c.workload.num_requests for c in cells} == {400_000}


@pytest.mark.traces
@pytest.mark.skipif("BSSIM_TRACES" not in os.environ, reason="needs BSSIM_TRACES")
@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if p.parent.name == "traces"], ids=lambda path: path.stem
)
def test_the_configs_on_real_traces_run(path: Path) -> None:
    cell = expand(read_sweep_file(path, num_requests=1000))[0]
    assert run_cell(cell).row["error"] == ""


def test_precisions_are_swept_over_and_located_when_wrong(tmp_path) -> None:
    path = tmp_path / "precision.yaml"
    text = "workloads: trace1\nschedulers: dfs\nkv_cache_dtype: [auto, fp8]\n"
    path.write_text(text + "quantization: [null, fp8]\n")
    cells = expand(read_sweep_file(path))
    found = [(c.llm.precision.quantization, c.llm.precision.kv_cache_dtype) for c in cells]
    assert found == [(None, "auto"), (None, "fp8"), ("fp8", "auto"), ("fp8", "fp8")]
    assert len({c.config_hash for c in cells}) == 4
    path.write_text(text + "quantization: fp7\n")
    with pytest.raises(InputError, match=r"precision\.yaml: quantization: found 'fp7'"):
        expand(read_sweep_file(path))


def test_pp_is_swept_and_a_column(cells_of: Cells) -> None:
    cells = cells_of(BASE + "num_requests: 20\npp: [1, 2]\n")
    assert [cell.engine.pipeline_parallel_size for cell in cells] == [1, 2]
    assert [run_cell(cell).row["pp"] for cell in cells] == [1, 2]
    with pytest.raises(InputError, match="pipeline_parallel_size: found beside the field `pp`"):
        cells_of(BASE + "pp: 2\nengine: {pipeline_parallel_size: 2}\n")


def test_the_constants_of_the_engine_version_decide_the_hash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = Cell(
        workload=WorkloadRef("trace1", 100, 0),
        scheduler="fcfs",
        llm=load_llm("llama-3-8b"),
        hardware=load_hardware("a100-80gb"),
        engine=load_preset("vllm"),
    )
    assert "vllm-v1.yaml" in cell.inputs()["file_digests"]
    before = cell.config_hash
    monkeypatch.setattr("bssim.experiments.sweeps.cell.file_digest", lambda path: "changed")
    assert replace(cell).config_hash != before
