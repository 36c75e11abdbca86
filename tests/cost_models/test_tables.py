"""Measured tables: their way into curves, and the fit of curves to them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bssim.cost_models.fitting import GRIDS, as_yaml, fit_curve
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import Shard, load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.roofline import RooflineCostModel
from bssim.cost_models.silicon import OperatorTables, load_tables, measured_hardware
from bssim.cost_models.step_cost import StepWork
from bssim.errors import InputError

LLM, A100 = load_llm("llama-3-8b"), load_hardware("a100-80gb")


def synthetic_tables() -> OperatorTables:
    """Return tables of a device whose times are known functions of the sizes."""
    rows, n, k = np.meshgrid([1, 256, 4096], [4096, 6144, 65536], [4096, 16384])
    gemm = pd.DataFrame({"rows": rows.ravel(), "n": n.ravel(), "k": k.ravel()})
    gemm["seconds"] = 1e-5 + 2 * gemm["rows"] * gemm["n"] * gemm["k"] / 200e12
    requests, size = np.meshgrid([1, 16, 256], [128, 1024, 8192])
    shape = {"heads": 32, "kv_heads": 8, "head_dim": 128, "requests": requests.ravel()}
    prefill = pd.DataFrame({**shape, "tokens": size.ravel()})
    prefill["seconds"] = 1e-5 + prefill["requests"] * prefill["tokens"] ** 2 * 1e-10
    decode = pd.DataFrame({**shape, "context": size.ravel()})
    decode["seconds"] = 2e-5 + decode["requests"] * decode["context"] * 4096 / 1.5e12
    decode = decode[decode["requests"] * decode["context"] < 10**6]  # one corner not measured
    reduce = pd.DataFrame({"gpus": [2, 2], "bytes": [1e6, 1e9], "seconds": [2e-5, 1e-2]})
    reduce.attrs["source"] = "measured: here"
    return OperatorTables("measured: here", gemm, prefill, decode, reduce)


def test_a_measured_size_takes_the_measured_time() -> None:
    model = RooflineCostModel(LLM, measured_hardware(synthetic_tables(), Shard(LLM, 1), A100))
    work = StepWork(256.0, 256 * 1024.0, 0.0, 0.0, 0.0, 0.0, 256.0)
    seconds = {o.name: o for o in model.operators(work)}
    flops = 2 * 256 * 6144 * 4096
    assert seconds["qkv_proj"].seconds == pytest.approx(32 * (1e-5 + flops / 200e12))
    attention = 32 * (2e-5 + 256 * 1024 * 4096 / 1.5e12)
    assert seconds["decode_attention"].seconds == pytest.approx(attention)
    assert seconds["decode_attention"].provenance == "measured: here"
    prefill = StepWork(0.0, 0.0, 16.0, 16 * 1024.0, 0.0, 16 * 1024 * 1025 / 2, 16.0)
    operators = {o.name: o for o in model.operators(prefill)}
    assert operators["prefill_attention"].seconds == pytest.approx(
        32 * (1e-5 + 16 * 1024**2 * 1e-10)
    )


def split_over_two_gpus() -> OperatorTables:
    """Return the tables with attention of half the heads, as two GPUs have it."""
    tables = synthetic_tables()
    halves = {"heads": 16, "kv_heads": 4}
    return replace(
        tables,
        prefill_attention=tables.prefill_attention.assign(**halves),
        decode_attention=tables.decode_attention.assign(**halves),
    )


def test_two_gpus_pay_the_measured_all_reduces() -> None:
    tables = split_over_two_gpus()
    model = RooflineCostModel(LLM, measured_hardware(tables, Shard(LLM, 2), A100), tp=2)
    rows = 1e6 / (LLM.hidden_size * 2)  # a message of the 1 MB that was measured
    work = StepWork(rows, rows * 1024.0, 0.0, 0.0, 0.0, 0.0, rows)
    network = {o.name: o for o in model.operators(work) if o.resource == "communication"}
    reduce = network["all_reduce"]
    assert reduce.seconds == pytest.approx((2 * LLM.num_layers + 1) * 2e-5)
    assert (reduce.bound, reduce.provenance) == ("communication", "measured: here; kernels: vllm")
    both = reduce.seconds + network["logits_gather"].seconds
    assert model.step_cost(work).communication_s == pytest.approx(both)


def test_tables_without_all_reduces_leave_them_to_the_device_file() -> None:
    tables = split_over_two_gpus()
    tables = replace(tables, all_reduce=tables.all_reduce.iloc[:0])
    model = RooflineCostModel(LLM, measured_hardware(tables, Shard(LLM, 2), A100), tp=2)
    work = StepWork(64.0, 64 * 1024.0, 0.0, 0.0, 0.0, 0.0, 64.0)
    (reduce,) = [o for o in model.operators(work) if o.name == "all_reduce"]
    (roofline,) = [
        o for o in RooflineCostModel(LLM, A100, tp=2).operators(work) if o.name == "all_reduce"
    ]
    assert reduce.seconds == pytest.approx(roofline.seconds)
    assert reduce.provenance.startswith(f"not in the tables; {A100.sources['all_reduce']}")


def test_an_unmeasured_corner_takes_the_smaller_batch_s_share() -> None:
    model = RooflineCostModel(LLM, measured_hardware(synthetic_tables(), Shard(LLM, 1), A100))
    measured = StepWork(16.0, 16 * 8192.0, 0.0, 0.0, 0.0, 0.0, 16.0)
    beyond = StepWork(256.0, 256 * 8192.0, 0.0, 0.0, 0.0, 0.0, 256.0)
    ratio = model.step_cost(beyond).memory_s / model.step_cost(measured).memory_s
    assert ratio == pytest.approx(16)


def test_attention_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(InputError, match=r"28 heads, 4 KV heads of 128.*\[32, 8, 128\]"):
        measured_hardware(synthetic_tables(), Shard(load_llm("qwen-2.5-7b"), 1), A100)


def test_a_near_count_of_query_heads_stands_in() -> None:
    llm = replace(LLM, num_attention_heads=40)
    model = RooflineCostModel(llm, measured_hardware(synthetic_tables(), Shard(llm, 1), A100))
    work = StepWork(256.0, 256 * 1024.0, 0.0, 0.0, 0.0, 0.0, 256.0)
    seconds = {o.name: o.seconds for o in model.operators(work)}
    assert seconds["decode_attention"] == pytest.approx(32 * (2e-5 + 256 * 1024 * 4096 / 1.5e12))
    with pytest.raises(InputError, match="found no attention rows for 56 heads"):
        measured_hardware(synthetic_tables(), Shard(replace(LLM, num_attention_heads=56), 1), A100)


def test_silicon_says_what_it_lacks() -> None:
    config = Path(__file__).parents[1] / "data" / "configs" / "minicpm3-4b.json"
    with pytest.raises(InputError, match=r"'kv_lora_rank': 256.*expected.*512"):
        make_cost_model("silicon", load_llm(config), A100)
    with pytest.raises(InputError, match="found hardware 'mi300x'"):
        make_cost_model("silicon", LLM, load_hardware("mi300x"))


def test_the_fit_recovers_a_power_law_and_knows_its_error() -> None:
    rng = np.random.default_rng(1)
    kv_heads, context = 2.0 ** rng.uniform(0, 14, 4000), 2.0 ** rng.uniform(0, 17, 4000)
    share = np.minimum(0.8, 1e-3 * (kv_heads * context) ** 0.5)
    noisy = np.minimum(share * np.exp(rng.normal(0, 0.02, 4000)), 1.0)
    at = {"kv_heads": kv_heads, "context": context}
    fit = fit_curve("decode_attention", at, noisy, "test", rng)
    assert np.median(fit.held_out_errors) < 0.03
    assert len(fit.held_out_errors) == pytest.approx(1200, abs=100)
    assert float(fit.curve.at(kv_heads=100.0, context=900.0)) == pytest.approx(0.3, rel=0.05)
    # more noise than a grid can follow is reported, not hidden
    wild = np.minimum(share * np.exp(rng.normal(0, 0.3, 4000)), 1.0)
    assert np.median(fit_curve("decode_attention", at, wild, "t", rng).held_out_errors) > 0.15


def test_a_printed_fit_is_a_hardware_file_s_section(tmp_path) -> None:
    rng = np.random.default_rng(2)
    at = {
        "gpus": rng.choice([2.0, 4.0, 8.0], 300),
        "bytes": 2.0 ** rng.uniform(8, 30, 300),
    }
    fit = fit_curve("all_reduce", at, 0.5 * at["bytes"] / 2**30, "test", rng)
    path = tmp_path / "mine.yaml"
    path.write_text("base: a100-80gb\nefficiency:\n" + as_yaml("all_reduce", fit) + "\n")
    read = load_hardware(path).all_reduce
    assert list(read.axes["gpus"]) == list(GRIDS["all_reduce"]["gpus"])
    assert read.values == pytest.approx(fit.curve.values)


def test_shipped_tables_as_read() -> None:
    """The rows that design.md quotes: GEMM 6144x4096 at 256 and 2048 rows."""
    tables = load_tables("a100-80gb")
    rows = tables.gemm[(tables.gemm["n"] == 6144) & (tables.gemm["k"] == 4096)]
    share = (2 * rows["rows"] * 6144 * 4096 / 312e12 / rows["seconds"]).set_axis(rows["rows"])
    assert share[256] == pytest.approx(0.73, abs=0.005)
    assert share[2048] == pytest.approx(0.81, abs=0.005)


@pytest.mark.parametrize(("kv_cache_dtype", "rows"), [("auto", "decode"), ("fp8", "decode_fp8")])
def test_attention_of_deepseek_takes_the_measured_time(kv_cache_dtype: str, rows: str) -> None:
    llm = load_llm("deepseek-v3", kv_cache_dtype=kv_cache_dtype)
    tables = load_tables("h100-sxm").mla
    model = make_cost_model("silicon", llm, load_hardware("h100-sxm"), tp=8)
    decode = tables[rows].query("heads == 16 and requests == 64 and context == 4095")
    prefill = tables["prefill"].query("heads == 16 and requests == 1 and tokens == 2048")
    work = StepWork(64.0, 64 * 4095.0, 1.0, 2048.0, 0.0, 2048 * 2049 / 2, 65.0)
    found = {operator.name: operator for operator in model.operators(work)}
    for name, row in (("decode_attention", decode), ("prefill_attention", prefill)):
        assert found[name].seconds == pytest.approx(61 * row["seconds"].item())
        assert found[name].provenance.endswith("MLA")


def test_links_of_a_machine_without_peer_access_do_not_price_four_l40s() -> None:
    l40s = load_hardware("l40s")
    tables = load_tables("l40s")
    for gpus in (4, 8):
        for name in ("all_reduce", "all_reduce_nccl", "all_reduce_trtllm"):
            share = float(l40s.curve(name).slice(gpus=gpus).at(bytes=64e6))
            assert 0.5 < share < 0.8, name
        rows = tables.all_reduce
        large = rows[(rows["gpus"] == gpus) & (rows["bytes"] == 64 * 2**20)]
        assert large["seconds"].item() < 2 * 64 * 2**20 / (0.5 * l40s.link_bandwidth)
    assert "sglang 0.5.12" in tables.all_reduce.attrs["source"]
