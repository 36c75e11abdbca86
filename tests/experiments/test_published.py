"""Published rows: read whole, simulated as they were run, fitted where it is said."""

import dataclasses

import pandas as pd
import pytest

from bssim.experiments.plots import scatter_figure
from bssim.experiments.result_pages.published.cells import cell_of, step_limits
from bssim.experiments.result_pages.published.host_fit import fit_host_time
from bssim.experiments.result_pages.published.measurements import (
    Measurement,
    measurements,
    releases,
)
from bssim.experiments.result_pages.published.predictions import errors, predictions, summary
from bssim.experiments.result_pages.published.ratios import ratio_table
from bssim.experiments.result_pages.published.study import STUDY
from bssim.experiments.sweeps import run_cell

ROW = Measurement("0.13.0", "h100-sxm", "fp16", "llama-3.1-8b", 1, 128, 2048, 3000, 8882.95)


def test_rows_are_complete_and_distinct():
    rows = measurements()
    assert (len(rows), sum(row.server for row in rows)) == (1098, 20)
    keys = {dataclasses.replace(row, output_tokens_per_s=0.0) for row in rows}
    assert len(keys) == len(rows)
    assert {row.release for row in rows} == set(releases())
    assert all(row.output_tokens_per_s > 0 for row in rows)
    assert all(row.num_requests >= (100 if row.server else 1000) for row in rows)


def test_every_gpu_and_group_size_can_be_drawn():
    rows = pd.DataFrame([dataclasses.asdict(row) for row in measurements()])
    rows = rows.assign(measured=rows["output_tokens_per_s"], predicted=rows["output_tokens_per_s"])
    drawn = scatter_figure({"all": rows}, "output tokens/s")
    assert len(drawn.axes[0].collections) > rows.groupby(["gpu", "tp"]).ngroups


def test_a_row_runs_with_the_limits_that_trtllm_bench_derives():
    cell = cell_of(ROW, releases()["0.13.0"])
    # 69.9 GB beside 16.1 GB of weights, 131,072 bytes a token: 0.95 of it holds 232 full requests
    assert cell.engine.max_num_seqs == 256
    assert cell.engine.max_num_batched_tokens == 2048
    short = dataclasses.replace(ROW, output_tokens=128)
    assert step_limits(short, cell.llm, cell.hardware) == (2048, 4096)
    assert cell.workload.num_requests == 3000
    assert cell.engine.admission == "reserve"


def test_a_server_runs_with_the_defaults_of_its_engine_on_its_gpu():
    rows = {(row.release, row.gpu): row for row in measurements() if row.server}
    a100, h100 = (
        cell_of(rows["vLLM 0.11.0", gpu], releases()["vLLM 0.11.0"]).engine
        for gpu in ("a100-80gb", "h100-sxm")
    )
    assert (a100.name, a100.max_num_batched_tokens, a100.max_num_seqs) == ("vllm", 2048, 256)
    assert (h100.max_num_batched_tokens, h100.max_num_seqs) == (8192, 1024)
    assert 0.10 < a100.kv_reserve < 0.15
    sglang = cell_of(rows["SGLang 0.5.5", "h100-sxm"], releases()["SGLang 0.5.5"])
    assert (sglang.engine.name, sglang.llm.kv_dtype_bytes) == ("sglang", 2)


def test_a_row_of_the_pytorch_backend_holds_a_whole_prompt_in_a_step():
    row = dataclasses.replace(ROW, release="1.0", input_tokens=20000, output_tokens=2000)
    engine = cell_of(row, releases()["1.0"]).engine
    assert engine.max_num_batched_tokens == 20000 + engine.max_num_seqs
    assert not engine.enable_chunked_prefill


def test_unchunked_prompts_run_when_nothing_can_be_evicted():
    row = dataclasses.replace(ROW, release="1.0")
    run = run_cell(cell_of(row, releases()["1.0"], num_requests=20)).row
    assert (run["status"], run["preemptions"]) == ("ok", 0)


def test_the_fit_finds_the_host_time_that_was_put_in():
    gpu_s, steps, requests = [100.0, 50.0, 80.0], [1000, 9000, 3000], [2e6, 1e5, 9e5]
    runs = list(zip(gpu_s, steps, requests, strict=True))
    lines = {
        "steps": steps,
        "host_steps": requests,
        "predicted_s": [g + 1e-3 * s + 2e-6 * r for g, s, r in runs],
        "per_step_s": [1e-3] * 3,
        "per_request_s": [2e-6] * 3,
        "measured_s": [g + 3e-3 * s + 12e-6 * r for g, s, r in runs],
    }
    assert fit_host_time(pd.DataFrame(lines)) == pytest.approx((3e-3, 12e-6))


def test_errors_are_of_absolute_values_and_their_sign():
    table = pd.DataFrame({"gpu": ["a"] * 3, "error": [-0.3, 0.1, 0.2]})
    line = errors(table, ["gpu"]).loc["a"]
    assert line["n"] == 3
    assert (line["median"], line["bias"]) == pytest.approx((0.2, 0.1))
    assert pd.isna(summary(pd.Series(dtype=float))["median"])


def test_a_common_error_cancels_in_a_ratio():
    base = {"release": "0.17.0", "precision": "fp16", "model": "m", "tp": 1, "load": "128/128"}
    table = pd.DataFrame(
        [
            base | {"gpu": "h100-sxm", "output_tokens_per_s": 200.0, "predicted": 240.0},
            base | {"gpu": "a100-80gb", "output_tokens_per_s": 100.0, "predicted": 120.0},
        ]
    )
    line = ratio_table(table).loc["H100 over A100, FP16"]
    assert (line["n"], line["measured"], line["predicted"]) == (1, 2.0, 2.0)
    assert line["median"] == pytest.approx(0.0)


def test_rows_of_one_cell_share_its_run():
    cells = STUDY.cells(None)
    hashes = [cell.config_hash for cell in cells]
    assert len(set(hashes)) == len(hashes) < len(measurements())
    run = {"status": "ok", "output_tokens": 1000, "makespan_s": 2.0, "steps": 10}
    table = predictions(pd.DataFrame([run] * len(cells)))
    assert len(table) == len(measurements())
    assert (table["predicted"] == 500.0).all()
