"""compare, plan and restore: verdicts on small copies of real questions, and what never happens."""

import gzip
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

import bssim
from bssim.errors import InputError
from bssim.experiments.batch import (
    OWN,
    Assumptions,
    Comparison,
    OrderResult,
    Serving,
    compare,
    comparison_table,
    open_pool,
    plan,
    pool_sample,
    restore,
)
from bssim.experiments.batch.comparison import money
from bssim.experiments.plots import comparison_figure, message_of
from bssim.experiments.result_pages.batches.suite import write_batch
from bssim.sim.workload import from_groups, make_workload
from bssim.sim.workload.readers import ReaderOptions, read_batch_file

ROOT = Path(__file__).parents[2]
SMALL_GPU = bssim.load_engine("vllm", num_gpu_blocks=400, max_num_seqs=16)
"""A KV cache that the small files below do not fit, as large files do not fit a real one."""


def write(path: Path, bodies: list[dict]) -> Path:
    rows = [{"custom_id": f"c{i}", "body": body} for i, body in enumerate(bodies)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chat(system: str, user: str, cap: int | None, **more: object) -> dict:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    cap_of = {} if cap is None else {"max_tokens": cap}
    return {"model": "llama-3-8b", "messages": messages, **cap_of, **more}


def test_requests_that_the_context_of_the_model_cannot_hold_are_counted(tmp_path: Path) -> None:
    caps = [50, 8_190, 9_000, 12_000]
    batch = write(tmp_path / "b.jsonl", [chat("s", "u" * 40, cap) for cap in caps])
    note = next(note for note in compare(batch, schedulers=["dfs"]).notes if "context" in note)
    assert note == (
        "the context of llama-3-8b has 8,192 tokens: vLLM refuses 2 requests (longer prompt or "
        "cap) and ends 1 output at this limit; all are simulated whole"
    )
    allowed = bssim.load_engine("vllm", max_model_len=16_384)
    for more in ({"engine": allowed}, {"model": "llama-3.1-8b"}):
        notes = compare(batch, schedulers=["dfs"], **more).notes
        assert not any("context" in note for note in notes)


def five_kinds(path: Path, count: int) -> Path:
    """Chat of five kinds with shared system prompts, tools and caps, as they come."""
    rng = np.random.default_rng(3)
    caps = (8, 16, 128, 256, 512)
    systems = [f"kind {k} " + "rules and examples " * 20 * (k + 1) for k in range(5)]
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
    bodies = []
    for i in range(count):
        k = int(rng.integers(0, 5))
        user = f"{i} " + "words " * int(rng.integers(5, 60))
        bodies.append(chat(systems[k], user, caps[k], **({"tools": tools} if k == 4 else {})))
    return write(path, bodies)


def documents(path: Path, count: int, questions: int = 8) -> Path:
    """Questions about documents, shuffled."""
    rng = np.random.default_rng(4)
    texts = [f"document {i} " + "a sentence of it " * 100 for i in range(count)]
    bodies = [chat("", f"{text} question {q}", 32) for text in texts for q in range(questions)]
    return write(path, [bodies[i] for i in rng.permutation(len(bodies)).tolist()])


def test_shuffled_questions_about_documents_are_worth_an_order(tmp_path: Path) -> None:
    found = compare(documents(tmp_path / "docs.jsonl", 60), engine=SMALL_GPU)
    assert found.choice.speedup > 1.5
    assert found.choice.mode == "file"
    assert found.choice.sharing > 2 * found.own.sharing
    assert found.verdict.startswith(f"Use {found.choice.scheduler}: ")
    assert min(found.choice.scenarios.values()) > 1.0
    assert set(found.choice.scenarios) == {"caps", "half", "short"}


def test_chat_of_five_kinds_keeps_its_order_or_gains(tmp_path: Path) -> None:
    """Their prefixes fit the cache in any order: no order of a file may be called a gain."""
    found = compare(five_kinds(tmp_path / "chat.jsonl", 400))
    assert found.best_file.speedup >= 1.0
    slower = [o for o in found.orders if o.mode == "file" and o.speedup < 1.0]
    assert found.best_file not in slower
    if found.best_file.speedup < 1.005:
        assert found.verdict == "Keep your order." or found.choice.mode == "run_time"


def test_the_verdict_names_time_and_money(tmp_path: Path) -> None:
    batch = documents(tmp_path / "docs.jsonl", 60)
    found = compare(batch, engine=SMALL_GPU, price_per_gpu_hour=1000.0, dp=2)
    saved = found.saved(found.choice)
    assert saved == pytest.approx(
        2 * (found.own.makespan_s - found.choice.makespan_s) / 3600 * 1000.0
    )
    assert found.verdict.endswith(f", saving ${saved:,.2f}.")
    cheap = replace(found, price_per_gpu_hour=1e-6)
    assert cheap.verdict.endswith(", saving less than $0.01.")


@pytest.mark.parametrize(
    ("dollars", "shown"),
    [(12.34, "$12.34"), (-1234.5, "-$1,234.50"), (-0.004, "$0.00"), (0.0, "$0.00")],
)
def test_money_has_its_sign_in_front_of_the_dollar(dollars: float, shown: str) -> None:
    assert money(dollars) == shown


def widest_comparison() -> Comparison:
    orders = tuple(
        OrderResult(
            scheduler=scheduler,
            mode="run_time" if scheduler == "lpm" else "file",
            makespan_s=2.4e6 if scheduler == OWN else 1.2e6,
            throughput_tok_s=1_234_567.0,
            sharing=1.0,
            share_of_bound=1.0,
            speedup=1.0,
            scenarios={"caps": 1.0, "half": 0.95, "short": 10.25},
        )
        for scheduler in (OWN, "dfs_compute_first", "lpm")
    )
    return Comparison("big", 1, orders, Assumptions(), gpus=64, price_per_gpu_hour=9.99)


def printed(width: int, table: Table) -> list[str]:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines() if line.strip()]


def test_the_widest_table_fits_into_120_columns() -> None:
    """That is the width of a pipe; a line is neither cut nor wrapped there."""
    lines = printed(120, comparison_table(widest_comparison()))
    assert len(lines) == 2 + 3
    assert lines[0].split()[-3:] == ["speed-up", "other", "lengths"]
    assert all(len(line.rstrip()) <= 120 and "…" not in line for line in lines)
    assert all("0.95-10.25x" in line for line in lines[2:])


def test_a_narrow_terminal_leaves_out_columns_and_names_them() -> None:
    found = widest_comparison()
    *lines, caption = printed(80, comparison_table(found, 80))
    assert all(len(line) <= 80 and "…" not in line for line in lines)
    rows = [line for line in lines if " file " in line or " run time " in line]
    assert len(rows) == 3
    assert all("0.95-10.25x" in row and " h " in row for row in rows)
    assert caption == "80 columns have no room for GPU-hours, tokens/s, sharing"
    assert printed(120, comparison_table(found, 120)) == printed(120, comparison_table(found))


def test_any_workload_can_be_compared_and_every_order_is_there_in_both_modes() -> None:
    found = compare("trace1", num_requests=300, engine="nanoflow")
    modes = {(o.scheduler, o.mode) for o in found.orders}
    assert {("dfs", "file"), ("ratio", "file"), ("ratio", "run_time")} <= modes
    assert ("dfs", "run_time") not in modes
    assert [o.makespan_s for o in found.orders] == sorted(o.makespan_s for o in found.orders)
    facts = found.as_json()
    assert {"scheduler", "mode", "makespan_s", "throughput_tok_s", "sharing", "speedup"} <= set(
        facts["orders"][0]
    )
    assert set(facts["choice"]) == {"scheduler", "mode", "speedup"}
    assert facts["assumed"]["model"] == {"value": "llama-3-8b", "from": "default"}
    json.dumps(facts)


def test_lengths_of_an_earlier_run_are_learned_by_prefix_and_cap(tmp_path: Path) -> None:
    bodies = [chat(f"kind {i % 2} " + "rules " * 40, f"{i}", 100) for i in range(200)]
    batch = write(tmp_path / "b.jsonl", bodies)
    rows = [
        {
            "custom_id": f"c{i}",
            "response": {"body": {"usage": {"completion_tokens": 10 if i % 2 else 60}}},
        }
        for i in range(100)
    ]
    rows.append({"custom_id": "c150", "response": None, "error": {"code": "x"}})
    earlier = tmp_path / "earlier.jsonl"
    earlier.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = compare(batch, lengths=earlier, schedulers=["dfs"])
    assert list(found.own.scenarios) == ["history", "drift", "caps"]
    assert not any("outputs taken as max" in note for note in found.notes)
    assert "100 of 200 requests ran before" in found.assumed["lengths"].origin
    # 2 x 50 known ones of 10 and of 60 tokens, and as many expected alike: 35 on average, not 100.
    tokens = found.own.throughput_tok_s * found.own.makespan_s
    prompts = read_batch_file(
        batch, ReaderOptions(tokenizer="bytes:4")
    ).workload.prompt_tokens.sum()
    assert (tokens - prompts) / 200 == pytest.approx(35, abs=2)
    earlier.write_text(json.dumps({**rows[0], "custom_id": "other"}))
    with pytest.raises(InputError, match=r"--lengths: found 1 results in .*none for a custom_id"):
        compare(batch, lengths=earlier)


def lengths(path: Path, tokens: dict[str, int]) -> None:
    """Write the output file of a run that generated so many tokens per ``custom_id``."""
    usage = {i: {"usage": {"completion_tokens": count}} for i, count in tokens.items()}
    rows = [{"custom_id": i, "response": {"body": body}} for i, body in usage.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_lengths_of_another_batch_file_are_learned_by_prefix(tmp_path: Path) -> None:
    today = write(
        tmp_path / "today.jsonl",
        [chat(f"kind {i % 2} " + "rules " * 40, f"new {i}", 100) for i in range(100)],
    )
    before = write(
        tmp_path / "before.jsonl",
        [chat(f"kind {(i + 1) % 2} " + "rules " * 40, f"old {i}", 100) for i in range(100)],
    )
    lengths(tmp_path / "out.jsonl", {f"c{i}": 60 if i % 2 else 10 for i in range(100)})
    known = {"lengths": tmp_path / "out.jsonl", "lengths_batch": before}
    found = open_pool(today, Serving.of(), **known).lengths.scenarios["history"]
    # The ids are the same, but kind 0 had the odd ones before.
    assert set(found[0::2]) == {60}
    assert set(found[1::2]) == {10}
    assert (
        compare(today, schedulers=["dfs"], **known)
        .assumed["lengths"]
        .origin.endswith("before.jsonl ran before")
    )
    with pytest.raises(InputError, match=r"--lengths-batch: found .*expected --lengths FILE"):
        compare(today, lengths_batch=before)
    lengths(tmp_path / "out.jsonl", {"other": 3})
    with pytest.raises(InputError, match=r"--lengths-batch: found .*none of its custom_ids"):
        compare(today, **known)


PROMPTS = st.lists(
    st.tuples(
        st.integers(0, 4),  # which document
        st.integers(0, 60),  # tokens after it
        st.integers(1, 60),  # cap
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=25, deadline=None)
@given(PROMPTS, st.sampled_from([1, 2]))
def test_a_planned_file_is_never_slower_than_the_input(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]], dp: int
) -> None:
    """Both files simulated again from scratch, as `bssim simulate` would."""
    folder = tmp_path_factory.mktemp("never")
    bodies = [
        {"prompt": [d + 1] * 64 + [100 + i] * n, "max_tokens": cap}
        for i, (d, n, cap) in enumerate(rows)
    ]
    batch = write(folder / "b.jsonl", bodies)
    engine = bssim.load_engine("vllm", num_gpu_blocks=24, max_num_seqs=4)
    written = plan(batch, folder / "o.jsonl", engine=engine, dp=dp)

    def seconds(files: list[Path], replicas: int) -> float:
        return max(
            bssim.simulate(
                file, "fcfs", engine=engine, output_lengths="max_tokens", dp=replicas
            ).makespan_s
            for file in files
            if file.stat().st_size
        )

    lines = [line for file in written.files for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(batch.read_text().splitlines())
    assert seconds(list(written.files), 1) <= seconds([batch], dp) * (1 + 1e-9)


def sampling(monkeypatch: pytest.MonkeyPatch, *, check_s: float = 0.0) -> None:
    """Sample every pool of more than 20 requests, as if it took long to simulate."""
    monkeypatch.setattr(pool_sample, "WHOLE_S", 0.0)
    monkeypatch.setattr(pool_sample, "SAMPLE_S", 0.0)
    monkeypatch.setattr(pool_sample, "CHECK_S", check_s)
    monkeypatch.setattr(pool_sample, "LEAST_REQUESTS", 20)


@settings(max_examples=10, deadline=None)
@given(PROMPTS, st.sampled_from([1, 2]), st.sampled_from(["auto", "lpm", "random"]))
def test_a_plan_from_a_sample_is_never_slower_than_the_input_either(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, int, int]],
    dp: int,
    scheduler: str,
) -> None:
    folder = tmp_path_factory.mktemp("sampled")
    bodies = [
        {"prompt": [d + 1] * 64 + [100 + i] * n, "max_tokens": cap}
        for i, (d, n, cap) in enumerate(rows * 2)
    ]
    batch = write(folder / "b.jsonl", bodies)
    engine = bssim.load_engine("vllm", num_gpu_blocks=24, max_num_seqs=4)
    with pytest.MonkeyPatch.context() as patch:
        sampling(patch)
        written = plan(batch, folder / "o.jsonl", engine=engine, dp=dp, scheduler=scheduler)
    lines = [line for file in written.files for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(batch.read_text().splitlines())
    seconds = max(
        bssim.simulate(file, "fcfs", engine=engine, output_lengths="max_tokens").makespan_s
        for file in written.files
        if file.stat().st_size
    )
    own = bssim.simulate(batch, "fcfs", engine=engine, output_lengths="max_tokens", dp=dp)
    if scheduler == "auto":
        assert seconds <= own.makespan_s * (1 + 1e-9)
    elif written.comparison.sample_requests is not None:
        assert written.order.makespan_s == pytest.approx(seconds)
        slower = [w for w in written.warnings if "is slower than" in w]
        assert bool(slower) == (written.order.makespan_s > written.comparison.own.makespan_s)


@pytest.mark.parametrize("check_s", [0.0, 1e9])
def test_a_large_pool_is_compared_by_a_sample_and_the_result_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_s: float
) -> None:
    batch = documents(tmp_path / "docs.jsonl", 120)
    whole = compare(batch, engine=SMALL_GPU, schedulers=["dfs", "lpm"])
    sampling(monkeypatch, check_s=check_s)
    monkeypatch.setattr(pool_sample, "LEAST_REQUESTS", 480)
    found = compare(batch, engine=SMALL_GPU, schedulers=["dfs", "lpm"])
    assert found.sample_requests == 480
    assert f"480 of {960:,} requests" in (found.sampling or "")
    assert found.as_json()["sample_requests"] == 480
    assert found.choice.scheduler == whole.choice.scheduler == "dfs"
    assert found.choice.sampled == (check_s == 0.0)
    assert found.own.makespan_s == pytest.approx(whole.own.makespan_s, rel=0.1)
    assert found.choice.makespan_s == pytest.approx(whole.choice.makespan_s, rel=0.03)
    if check_s:
        assert found.choice.makespan_s == whole.choice.makespan_s
        assert found.own.makespan_s == whole.own.makespan_s
    else:
        assert found.verdict.startswith("Use dfs: about ")


def test_a_sample_keeps_prefix_groups_whole_and_kinds_in_proportion() -> None:
    rng = np.random.default_rng(0)
    group = np.concatenate([np.full(4000, -1), np.repeat(np.arange(250), 8), np.full(2000, 250)])
    rng.shuffle(group)
    tree, node = from_groups(group, np.full(251, 50))
    outputs = np.where(group < 0, 10, np.where(group < 250, 20, rng.integers(1, 1000, 8000)))
    pool = make_workload("kinds", np.full(8000, 100), outputs, tree=tree, node=node)
    rows = pool_sample.sampled_rows(pool, outputs, 800)
    assert (np.diff(rows) > 0).all()
    documents = group[rows][(group[rows] >= 0) & (group[rows] < 250)]
    assert set(np.unique(documents, return_counts=True)[1]) == {8}
    for kind in (group < 0, (group >= 0) & (group < 250), group == 250):
        assert np.count_nonzero(kind[rows]) == pytest.approx(kind.sum() / 10, rel=0.1)
    assert outputs[rows].mean() == pytest.approx(outputs.mean(), rel=0.01)


def test_plan_says_what_it_assumed_and_how_to_run_the_file(tmp_path: Path) -> None:
    batch = documents(tmp_path / "docs.jsonl", 60)
    written = plan(batch, tmp_path / "ordered.jsonl", engine=SMALL_GPU, tp=1)
    assert written.order.speedup > 1.5
    assert written.warnings == ()
    assert " instead of " in written.summary
    (command,) = written.commands
    assert command.startswith(f"vllm run-batch -i {tmp_path}/ordered.jsonl -o ")
    assert "--model llama-3-8b --max-num-seqs 16" in command
    assert written.comparison.assumed["engine"].origin == "given"


def test_the_command_of_a_plan_gives_vllm_every_setting_of_the_simulation(tmp_path: Path) -> None:
    batch = documents(tmp_path / "docs.jsonl", 6)
    settings = {"max_model_len": 4096, "kv_reserve": 0.05, "enable_prefix_caching": False}
    engine = bssim.load_engine("vllm", **settings, async_scheduling=True)
    llm = bssim.load_model("llama-3-8b", quantization="fp8", kv_cache_dtype="fp8")
    (command,) = plan(batch, tmp_path / "o.jsonl", model=llm, engine=engine, tp=2).commands
    assert command.partition("--max-num-batched-tokens 8192 ")[2] == (
        "--max-model-len 4096 --no-enable-prefix-caching --async-scheduling "
        "--gpu-memory-utilization 0.95 --tensor-parallel-size 2 "
        "--quantization fp8 --kv-cache-dtype fp8"
    )


def test_the_figure_of_a_comparison_has_its_verdict_and_stays_in_its_frame(tmp_path: Path) -> None:
    batch = documents(tmp_path / "docs.jsonl", 20)
    found = compare(batch, engine=SMALL_GPU, schedulers=["dfs"])
    figure = comparison_figure(found)
    assert message_of(figure) == (
        f"{found.verdict} llama-3-8b on a100-80gb, vllm, roofline cost model, lengths: caps, "
        f"{found.num_requests} requests"
    )
    figure.canvas.draw()
    (axes,) = figure.axes
    label = axes.xaxis.label.get_window_extent()
    assert 0 <= label.x0 < label.x1 <= figure.bbox.x1


def test_a_comparison_says_how_the_gpu_runs_the_model(tmp_path: Path) -> None:
    batch = documents(tmp_path / "docs.jsonl", 6)
    llm = bssim.load_model("qwen3-8b", quantization="fp8")
    assert "a100-80gb has no fp8 units" in compare(batch, schedulers=["dfs"], model=llm).notes[-1]
    gemma = compare(batch, schedulers=["dfs"], model="gemma-2-9b", hardware="h100-sxm")
    assert "sliding attention over 4,096 tokens" in gemma.notes[-1]


def test_each_replica_of_a_plan_runs_on_its_own_gpus(tmp_path: Path) -> None:
    batch = documents(tmp_path / "docs.jsonl", 6)
    for dp, tp, devices in ((3, 1, ["0", "1", "2"]), (3, 4, ["0,1,2,3", "4,5,6,7", "0,1,2,3"])):
        commands = plan(batch, tmp_path / "o.jsonl", engine=SMALL_GPU, dp=dp, tp=tp).commands
        assert [command.split(" ")[0] for command in commands] == [
            f"CUDA_VISIBLE_DEVICES={numbers}" for numbers in devices
        ]


def test_files_with_completions_are_run_by_bssim(tmp_path: Path) -> None:
    """`vllm run-batch` of 0.32 has no completions endpoint."""
    batch = write(tmp_path / "b.jsonl", [{"prompt": [1, 2], "max_tokens": 1, "model": "m"}])
    (command,) = plan(batch, tmp_path / "o.jsonl").commands
    assert command.startswith(f"bssim run {tmp_path}/o.jsonl -o {tmp_path}/o.results.jsonl ")
    assert "--scheduler fcfs --model m --engine-args '--max-num-seqs 256" in command


def test_plan_warns_of_another_model_and_of_a_slower_order(tmp_path: Path) -> None:
    body = {**chat("s", "hi", 4), "model": "Qwen/Qwen2.5-72B-Instruct"}
    batch = write(tmp_path / "b.jsonl", [body, chat("s", "ho", 4)])
    written = plan(batch, tmp_path / "o.jsonl")
    (warning,) = written.warnings
    assert warning.startswith("1 line for model 'Qwen/Qwen2.5-72B-Instruct', simulated on llama")
    docs = documents(tmp_path / "docs.jsonl", 60)
    sorted_ = tmp_path / "sorted.jsonl"
    plan(docs, sorted_, engine=SMALL_GPU)
    slower = plan(sorted_, tmp_path / "r.jsonl", scheduler="random", engine=SMALL_GPU)
    assert slower.order.speedup < 1.0
    assert "random is slower than the file's own order" in slower.warnings[0]


def test_plan_compresses_and_names_stale_parts(tmp_path: Path) -> None:
    batch = documents(tmp_path / "docs.jsonl", 6)
    plan(batch, tmp_path / "o.jsonl.gz", dp=3)
    assert sorted(p.name for p in tmp_path.glob("o.*")) == [f"o.{k}.jsonl.gz" for k in range(3)]
    written = plan(batch, tmp_path / "o.jsonl.gz", dp=2)
    assert written.warnings == (
        f"{tmp_path}/o.2.jsonl.gz is left from an earlier plan and not part of this one",
    )
    lines = [line for f in written.files for line in gzip.decompress(f.read_bytes()).splitlines()]
    assert sorted(lines) == sorted(batch.read_bytes().splitlines())
    assert all(command.startswith("gunzip --keep ") for command in written.commands)
    with pytest.raises(InputError, match="--out: found '-'"):
        plan(batch, "-", dp=2)


def test_a_plan_on_stdout_is_the_file_and_nothing_else(tmp_path: Path) -> None:
    batch = documents(tmp_path / "docs.jsonl", 6)
    plan(batch, tmp_path / "o.jsonl")
    run = subprocess.run(
        [sys.executable, "-m", "bssim", "plan", str(batch), "-o", "-"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=True,
    )
    assert run.stdout == (tmp_path / "o.jsonl").read_bytes()
    assert b"requests to stdout" in run.stderr


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("# notes\n", r"b\.jsonl:1: found columns # notes; expected lines of an OpenAI"),
        ("prompt_tokens,output_tokens\n3,4\n", r"b\.jsonl: found a trace of the format bssim-csv"),
        ("", r"b\.jsonl: found an empty file"),
    ],
)
def test_plan_takes_only_batch_files(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "b.jsonl").write_text(text)
    with pytest.raises(InputError, match=found):
        plan(tmp_path / "b.jsonl", tmp_path / "o.jsonl")


def test_plan_leaves_what_it_cannot_price_at_the_end(tmp_path: Path) -> None:
    bodies = [chat("s", "first", 4, n=2), chat("s", "hi", 4), chat("s", "ho", 4)]
    batch = write(tmp_path / "b.jsonl", bodies)
    with pytest.raises(InputError, match=r"body\.n: found 2; .*--on-unsupported end"):
        plan(batch, tmp_path / "o.jsonl")
    written = plan(batch, tmp_path / "o.jsonl", on_unsupported="end")
    assert written.left_out == {"n is not 1": 1}
    assert (written.num_requests, written.planned) == (3, 2)
    last = (tmp_path / "o.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["custom_id"] == "c0"


def results(path: Path, *rows: tuple[str, int]) -> Path:
    lines = [
        json.dumps({"custom_id": i, "response": {"status_code": s, "body": {}}, "error": None})
        for i, s in rows
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_restore_joins_shards_and_lists_what_is_wrong(tmp_path: Path) -> None:
    batch = write(tmp_path / "b.jsonl", [{"prompt": [1], "max_tokens": 1}] * 5)
    one = results(tmp_path / "r0.jsonl", ("c3", 200), ("c1", 500), ("c4", 400))
    two = results(tmp_path / "r1.jsonl", ("c1", 200), ("zz", 200), ("c0", 200))
    found = restore(batch, [one, two], tmp_path / "out.jsonl")
    assert found.missing == ("c2",)
    assert found.duplicate == ("c1",)
    assert found.failed == ("c4",)
    assert found.unknown == ("zz",)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["custom_id"] for row in rows] == ["c0", "c1", "c3", "c4"]
    assert rows[1]["response"]["status_code"] == 200
    with pytest.raises(InputError, match=r"r0\.jsonl:1: body: found None; expected a line of a ba"):
        restore(one, [two], tmp_path / "x.jsonl")


def test_plan_then_restore_gives_the_order_of_the_input(tmp_path: Path) -> None:
    batch, _ = write_batch(tmp_path, "document_questions", 80, 0)
    written = plan(batch, tmp_path / "o.jsonl", dp=2, engine=SMALL_GPU)
    shards = []
    for k, file in enumerate(written.files):
        ids = [json.loads(line)["custom_id"] for line in file.read_text().splitlines()]
        shards.append(results(tmp_path / f"r{k}.jsonl", *((i, 200) for i in ids)))
    assert restore(batch, shards, tmp_path / "out.jsonl").missing == ()
    ids = [json.loads(x)["custom_id"] for x in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ids == [f"r{i}" for i in range(80)]
