"""The command line: exit status, what goes to stdout and what to stderr, files written."""

import gzip
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from bssim.experiments.cli import main
from bssim.experiments.sweeps import COLUMNS, build_workload, winners_table

ROOT = Path(__file__).parents[2]
SIMULATE = ("simulate", "--workload", "trace1", "--num-requests", "300")


class Shell:
    """Runs commands in this process, in a folder of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object, expect: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        assert (exit_.value.code or 0) == expect, err
        return out, err

    def json(self, *arguments: object, expect: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", expect=expect)[0])


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.chdir(tmp_path)
    build_workload.cache_clear()  # relative paths mean other files in another folder
    return Shell(capsys)


def write_sweep(text: str = "") -> Path:
    path = Path("demo.yaml")
    path.write_text(text or "workloads: trace1\nschedulers: [fcfs, dfs]\nnum_requests: 300\n")
    return path


def test_more_requests_than_a_pool_can_have_are_refused(shell: Shell) -> None:
    _, err = shell("simulate", "-w", "trace1", "-n", 10**30, expect=2)
    assert err == f"error: num_requests: found {10**30}; expected at most 2,147,483,647\n"


def test_ctrl_c_while_a_command_ends_is_no_traceback(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_handler = signal.signal

    def interrupted(number: int, handler: Any) -> Any:
        before = set_handler(number, handler)
        if number == signal.SIGTERM and handler == signal.SIG_DFL:  # as it was before the command
            raise KeyboardInterrupt
        return before

    monkeypatch.setattr(signal, "signal", interrupted)
    _, err = shell("models", expect=130)
    assert err == "interrupted\n"


def test_simulate_prints_one_row_as_json(shell: Shell) -> None:
    row = shell.json(*SIMULATE, "-s", "dfs", "--seed", 3)
    assert tuple(row) == COLUMNS
    assert (row["scheduler"], row["seed"], row["num_requests"]) == ("dfs", 3, 300)
    assert row["throughput_tok_s"] == pytest.approx(
        (row["prompt_tokens"] + row["output_tokens"]) / row["makespan_s"]
    )
    walls = {"plan_wall_s", "sim_wall_s"}
    again = shell.json(*SIMULATE, "-s", "dfs", "--seed", 3)
    assert {k: v for k, v in again.items() if k not in walls} == {
        k: v for k, v in row.items() if k not in walls
    }


def test_simulate_prints_a_table_for_people(shell: Shell) -> None:
    out, _ = shell(*SIMULATE)
    assert "tokens/s" in out
    assert "300 requests" in out
    out, _ = shell("simulate", "-w", "trace1", "-n", 1, "-s", "dfs")
    assert ", 1 request\n" in out


def test_simulate_prints_the_tightest_bound_and_how_much_of_it_was_reached(shell: Shell) -> None:
    row, (out, _) = shell.json(*SIMULATE), shell(*SIMULATE)
    (line,) = [line for line in out.splitlines() if line.startswith("bound ")]
    seconds, share = row["makespan_s"] * row["share_of_bound"], row["share_of_bound"]
    assert line.split()[1] == f"{seconds:,.1f}"
    assert "tightest lower bound" in line
    assert line.endswith(f"reached {share:.1%}")


def test_knobs_reach_the_engine(shell: Shell) -> None:
    base = shell.json(*SIMULATE, "-s", "fcfs", "--engine", "vllm")
    few = shell.json(*SIMULATE, "-s", "fcfs", "--engine", "vllm", "--set", "engine.max_num_seqs=2")
    assert few["steps"] > base["steps"]
    assert base["overlap"] == "sequential"
    other = shell.json(*SIMULATE, "-s", "fcfs", "--engine", "vllm", "--overlap", "gamma:0.2")
    assert (other["engine"], other["overlap"]) == ("vllm", "gamma:0.2")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("-s", "blendsreve"), "'blendserve'"),
        (("-m", "llama-3-8"), "'llama-3-8b'"),
        (("--hardware", "a100-80g"), "'a100-80gb'"),
        (("--hardware", "h100"), "found 'h100' (did you mean 'h100-pcie' or 'h100-sxm'?)"),
        (("--hardware", "H100-S"), "found 'H100-S' (did you mean 'h100-sxm'?)"),
        (("--engine", "vlm"), "--engine: found 'vlm' (did you mean 'vllm'?)"),
        (("--overlap", "gamma:2"), "--overlap: found 'gamma:2'; expected sequential, perfect"),
        (("--set", "engine.overlap=gamma:2"), "--set engine.overlap: found 'gamma:2'; expected"),
        (("--set", "engine.max_num_seqs=-3"), "--set engine.max_num_seqs: found -3; expected"),
        (("--cost-model", "rofline"), "'roofline'"),
        (("--output-lengths", "oracel"), "'oracle'"),
        (("--set", "engine.max_seqs=3"), "'max_num_seqs'"),
        (("--set", "engine.max_num_seqs=three"), "'three'"),
        (("--set", "max_num_seqs=3"), "engine.FIELD=VALUE"),
        (("--timeline", "out.csv"), ".parquet"),
        (("--steps", "no/such/s.jsonl"), "--steps: found no folder 'no/such' for 's.jsonl'"),
        (("-w", "trace9"), "'trace9'"),
        (("-w", "missing.csv"), "workload: found 'missing.csv', but there is no such file; expect"),
        (("-w", ""), "workload: found ''; expected one of: "),
        (("-w", "."), "workload: found '.', a folder; expected a trace file"),
        (("--schedule", "no/such/s.jsonl"), "--schedule: found no folder 'no/such' for"),
        (("--timeline", "no/such/s.parquet"), "--timeline: found no folder 'no/such' for"),
        (("--schedule", ""), "--schedule: found '.', a folder; expected a file to write"),
        (("--steps", "."), "--steps: found '.', a folder; expected a file to write"),
        (("-m", ""), "model: found ''; expected one of: "),
        (("--set", "engine.max_num_seqs=inf"), "--set engine.max_num_seqs: found 'inf'; expected"),
    ],
)
def test_wrong_input_is_one_line_and_exit_status_2(
    shell: Shell, arguments: tuple[str, ...], expected: str
) -> None:
    out, err = shell(*SIMULATE, *arguments, expect=2)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert "Errno" not in err


def test_steps_timeline_and_schedule_are_written(shell: Shell) -> None:
    files = ("--steps", "s.jsonl", "--timeline", "t.parquet", "--schedule", "o.jsonl")
    row = shell.json(*SIMULATE, *files)
    steps = [json.loads(line) for line in Path("s.jsonl").read_text().splitlines()]
    assert len(steps) == row["steps"]
    assert set(steps[0]) == {"step", "scheduled", "cached", "preempted", "free_blocks", "finished"}
    finished = [request for step in steps for request in step["finished"]]
    assert sorted(finished) == sorted(f"r{i}" for i in range(300))
    timeline = pd.read_parquet("t.parquet")
    assert len(timeline) == row["steps"]
    assert timeline["step_s"].sum() == pytest.approx(row["makespan_s"])
    assert timeline["compute_s"].sum() == pytest.approx(row["compute_s"])
    assert len(Path("o.jsonl").read_text().splitlines()) >= 300


def test_sweep_writes_results_and_figures_and_resumes(shell: Shell) -> None:
    config = write_sweep()
    rows = shell.json("sweep", config, "--jobs", 2)
    assert [row["scheduler"] for row in rows] == ["fcfs", "dfs"]
    folder = Path("results/demo")
    for name in ("runs.csv", "runs.parquet", "summary.md"):
        assert (folder / name).stat().st_size > 0
    assert (folder / "figures" / "throughput.pdf").exists()
    assert (folder / "figures" / "steps-trace1.png").exists()
    _, err = shell("sweep", config)
    assert "0 cells to run (2 finished earlier)" in err
    before = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    assert len(shell.json("plot", folder)) == len(before)
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == before


def test_a_large_sweep_says_that_it_draws_no_steps(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("bssim.experiments.sweeps", "bssim.experiments.sweeps.run"):
        monkeypatch.setattr(f"{module}.TIMELINE_CELLS", 1)
    config, figures = write_sweep(), Path("results/demo/figures")
    note = "note: demo: no figures of steps: more than 1 cells; `timeline: true` in the file"
    assert note in shell("sweep", config)[1]
    assert not list(figures.glob("steps-*"))
    config.write_text(config.read_text() + "timeline: true\n")
    assert "no figures of steps" not in shell("sweep", config)[1]
    assert list(figures.glob("steps-*"))


def test_a_failed_cell_is_exit_status_1_and_the_others_have_results(shell: Shell) -> None:
    config = write_sweep(
        "workloads: trace1\nschedulers: dfs\nnum_requests: 300\n"
        "engine: {preset: nanoflow, max_model_len: [null, 3]}\n"
    )
    out, _ = shell("sweep", config, "--json", expect=1)
    assert sorted(row["status"] for row in json.loads(out)) == ["failed", "ok"]
    assert "Cells without a result" in Path("results/demo/summary.md").read_text()


def test_a_wrong_sweep_file_runs_nothing(shell: Shell) -> None:
    good = write_sweep()
    bad = Path("bad.yaml")
    for text, place in (
        ("workloads: trace1\nschedulers: dsf\n", "bad.yaml:2: schedulers: found 'dsf'"),
        ("workloads: trace9\nschedulers: dfs\n", "bad.yaml:1: workloads: found 'trace9'"),
    ):
        bad.write_text(text)
        out, err = shell("sweep", good, bad, expect=2)
        assert out == ""
        assert err.startswith(f"error: {place}")
        assert not Path("results").exists()


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ("batch.jsonl", "bad.yaml:1: workloads: batch.jsonl: found text prompts but no tok"),
        ("{source: batch.jsonl, tokenizer: no/t.json}", "no/t.json"),
        ("{source: uncapped.jsonl, tokenizer: 'bytes:4'}", "max_completion_tokens: found None"),
        ("{source: azure.csv, tokenizer: 'bytes:4'}", "bad.yaml:1: workloads.tokenizer: found"),
    ],
)
def test_a_sweep_refuses_reader_options_before_the_first_cell(
    shell: Shell, entry: str, place: str
) -> None:
    batch = batch_file(3)
    Path("uncapped.jsonl").write_text(batch.read_text().replace("max_tokens", "max_t"))
    Path("azure.csv").write_text("ContextTokens,GeneratedTokens\n10,1\n")
    Path("bad.yaml").write_text(f"workloads: {entry}\nschedulers: [fcfs, dfs]\n")
    _, err = shell("sweep", "bad.yaml", expect=2)
    assert place in err
    assert not Path("results").exists()


def test_two_files_of_one_name_are_refused(shell: Shell) -> None:
    config = write_sweep()
    assert "'demo' is taken" in shell("sweep", config, config, expect=2)[1]


def test_describe_and_convert(shell: Shell) -> None:
    facts = shell.json("workload", "describe", "trace1", "-n", 2000)
    wanted = {"num_requests", "prompt_tokens_mean", "output_tokens_mean", "sharing_max", "density"}
    assert wanted <= set(facts)
    assert (
        facts["density"]
        < shell.json(*("workload", "describe", "trace1", "-n", 2000, "-m", "llama-3-70b"))[
            "density"
        ]
    )
    shell("workload", "describe", "trace1", "-n", 500)
    assert not list(Path.cwd().iterdir())
    shell("workload", "describe", "trace1", "-n", 500, "--figure", "trace1.png")
    assert Path("trace1.png").exists()
    assert Path("trace1.pdf").exists()
    for command in (("workload", "describe", "trace1", "-n", 500), ("costs", "--decode", "1x9")):
        out, err = shell(*command, "--figure", "no/x.png", expect=2)
        assert (out, err) == (
            "",
            "error: --figure: found no folder 'no' for 'x.png'; expected an existing one\n",
        )
        assert not Path("no").exists()
    shell("workload", "convert", "trace1", "t.csv", "-n", 200)
    table = pd.read_csv("t.csv")
    assert list(table.columns) == [
        *("request_id", "source", "prompt_tokens", "output_tokens", "max_cached_tokens"),
    ]
    assert len(table) == 200
    shell("workload", "convert", "trace1", "t.jsonl", "-n", 50)
    row = shell.json("simulate", "-w", "t.jsonl", "-s", "dfs")
    assert row["num_requests"] == 50
    facts = shell.json("workload", "convert", "t.jsonl", "t.csv", "-n", 20)
    assert facts == {"out": "t.csv", "num_requests": 20}


def batch_file(requests: int = 60) -> Path:
    path = Path("batch.jsonl")
    lines = []
    for i in range(requests):
        shared = f"You grade essays by rubric number {i % 3}. " * 20
        messages = [{"role": "user", "content": f"{shared} essay {i} é"}]
        body = {"model": "m", "messages": messages, "max_tokens": 5 + i}
        line = {"custom_id": f"c{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(line, ensure_ascii=False))
    path.write_text("\n".join(lines))  # no newline at the end
    return path


def test_plan_writes_every_line_once_in_another_order(shell: Shell) -> None:
    batch = batch_file()
    lines = batch.read_bytes().splitlines()
    facts = shell.json("plan", batch, "-o", "ordered.jsonl", "-s", "dfs", "--tokenizer", "bytes:4")
    ordered = Path("ordered.jsonl").read_bytes().splitlines()
    assert ordered != lines
    assert sorted(ordered) == sorted(lines)
    assert facts["num_requests"] == 60
    groups = [json.loads(line)["body"]["messages"][0]["content"][34] for line in ordered]
    assert len([1 for a, b in itertools.pairwise(groups) if a != b]) == 2


def test_plan_writes_a_file_a_replica(shell: Shell) -> None:
    batch = batch_file()
    facts = shell.json(
        *("plan", batch, "-o", "ordered.jsonl", "-s", "dfs", "--tokenizer", "bytes:4"),
        *("-m", "llama-3-70b", "--tp", "4", "--dp", "2"),
    )
    assert facts["files"] == ["ordered.0.jsonl", "ordered.1.jsonl"]
    parts = [Path(file).read_bytes().splitlines() for file in facts["files"]]
    assert sorted(itertools.chain(*parts)) == sorted(batch.read_bytes().splitlines())
    assert min(map(len, parts)) > 20
    _, err = shell(
        *("plan", parts_of := Path("ordered.0.jsonl"), "-o", "ordered.jsonl", "--dp", "2"),
        *("--tokenizer", "bytes:4"),
        expect=2,
    )
    assert f"{str(parts_of)!r}, the batch file itself" in err


def test_plan_keeps_the_line_ends_of_windows(shell: Shell) -> None:
    batch = batch_file(4)
    batch.write_bytes(b"".join(line + b"\r\n" for line in batch.read_bytes().splitlines()))
    shell("plan", batch, "-o", "ordered.jsonl", "--tokenizer", "bytes:4")
    ordered = Path("ordered.jsonl").read_bytes().splitlines(keepends=True)
    assert sorted(ordered) == sorted(batch.read_bytes().splitlines(keepends=True))


def ids(lines: bytes) -> list[str]:
    return [json.loads(line)["custom_id"] for line in lines.splitlines()]


@pytest.mark.parametrize("dp", [1, 2])
def test_plan_puts_what_the_reader_drops_at_the_end(shell: Shell, dp: int) -> None:
    rows = [json.loads(line) for line in batch_file(12).read_text().splitlines()]
    for dropped in ({"max_tokens": 0}, {"prompt": "", "messages": None}):
        body = {**rows[0]["body"], **dropped}
        rows.insert(len(dropped), {"custom_id": f"empty{len(dropped)}", "body": body})
    Path("kept.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows[:1] + rows[3:]))
    Path("all.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Path("kept").mkdir()
    for name, out in (("kept.jsonl", "kept/o.jsonl"), ("all.jsonl", "o.jsonl")):
        options = ("-s", "dfs", "--tokenizer", "bytes:4", "--dp", dp)
        files = shell.json("plan", name, "-o", out, *options)["files"]
    *whole, last = [Path(file).read_bytes() for file in files]
    *expected, expected_last = [Path("kept", file).read_bytes() for file in files]
    assert whole == expected
    assert ids(last) == [*ids(expected_last), "empty1", "empty2"]


@pytest.mark.parametrize("kind", ["gzip", "byte-order mark"])
def test_plan_reads_what_the_reader_reads(shell: Shell, kind: str) -> None:
    batch = batch_file(9)
    plain = batch.read_bytes()
    shell("plan", batch, "-o", "plain.jsonl", "-s", "dfs", "--tokenizer", "bytes:4")
    batch.write_bytes(gzip.compress(plain) if kind == "gzip" else b"\xef\xbb\xbf" + plain)
    build_workload.cache_clear()
    shell("plan", batch, "-o", "ordered.jsonl", "-s", "dfs", "--tokenizer", "bytes:4")
    assert Path("ordered.jsonl").read_bytes() == Path("plain.jsonl").read_bytes()


def test_plan_refuses_a_pipe(shell: Shell) -> None:
    read, write = os.pipe()
    os.close(write)
    pipe = f"/dev/fd/{read}"
    _, err = shell("plan", pipe, "-o", "ordered.jsonl", "--tokenizer", "bytes:4", expect=2)
    os.close(read)
    assert (
        err
        == f"error: BATCH: found {pipe!r}, a pipe or device; expected a file: it is read twice\n"
    )


def test_plan_does_not_overwrite_its_input(shell: Shell) -> None:
    batch = batch_file(3)
    _, err = shell("plan", batch, "-o", batch, "--tokenizer", "bytes:4", expect=2)
    assert "the batch file itself" in err


def test_models_are_listed_with_their_sizes(shell: Shell) -> None:
    head, *lines = shell("models")[0].splitlines()
    assert head.split() == ["model", "parameters", "precision", "weights", "KV", "per", "token"]
    assert [line.split()[0] for line in lines] == shell.json("models")
    facts = ["llama-3-8b", "8.03", "B", "bfloat16", "16.1", "GB", "131,072", "B"]
    assert facts in [line.split() for line in lines]


@pytest.mark.parametrize("command", ["hardware", "schedulers", "engines"])
def test_lists_start_with_the_names_of_their_json(shell: Shell, command: str) -> None:
    names = shell.json(command)
    assert names
    lines = shell(command)[0].splitlines()
    first = [line.split()[0] for line in lines]
    assert first == (names if command == "schedulers" else [command.rstrip("s"), *names])


def test_hardware_and_schedulers_are_listed_with_facts(shell: Shell) -> None:
    (line,) = [line for line in shell("hardware")[0].splitlines() if line.startswith("h200")]
    assert " ".join(line.split()) == "h200 141 GB 4.80 TB/s 450 GB/s 989 TFLOP/s 1,979 TFLOP/s"
    assert "uniformly random" in shell("schedulers")[0]


def test_support_says_where_a_model_fits_and_what_is_measured(shell: Shell) -> None:
    found = shell.json(
        *("support", "-m", "llama-3-70b", "--quantization", "none", "--quantization", "fp8"),
        *("--hardware", "a100-80gb", "--hardware", "h200", "--hardware", "mi300x"),
    )
    assert [(e["precision"], e["hardware"], e["tp"]) for e in found] == [
        *(("bfloat16", "a100-80gb", 2), ("bfloat16", "h200", 2), ("bfloat16", "mi300x", 1)),
        *(("fp8", "a100-80gb", 2), ("fp8", "h200", 1), ("fp8", "mi300x", 1)),
    ]
    measured = {entry["hardware"]: entry["measured"] for entry in found[:3]}
    assert measured["h200"] > 0.95
    assert measured["mi300x"] == 0  # every curve is that of another GPU
    (entry,) = shell.json("support", "-m", "llama-3.1-405b", "--hardware", "a100-80gb")
    assert entry["tp"] is None
    assert "weights take" in entry["problem"]
    lines = shell("support")[0].splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if line.startswith("llama-3-70b")).split()
    assert row[:2] == ["llama-3-70b", "bfloat16"]
    assert row[2:] == ["4~", "2", "1", "1~", "2~", "2~", "2", "2", "4", "1~"]


def test_costs_are_a_breakdown_that_adds_up(shell: Shell) -> None:
    report = shell.json("costs", "--prefill", "4x768", "--decode", "96x700")
    assert {"step_s", "compute_s", "memory_s", "operators"} <= set(report)
    assert all({"name", "seconds", "bound", "provenance"} <= set(o) for o in report["operators"])
    assert sum(o["seconds"] for o in report["operators"]) == pytest.approx(report["step_s"])
    out, _ = shell("costs", "--prefill", "4x768", "--figure", "roofline.png")
    assert "where the numbers come from" in out
    assert Path("roofline.png").exists()
    assert shell("costs", "--decode", "1x9", "--figure", "roofline.png", "--quiet")[1] == ""


def test_version_and_module_entry_point() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "bssim", "--version"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("bssim ")


def test_ctrl_c_ends_with_130_and_says_how_to_resume(tmp_path: Path) -> None:
    """The real signal, sent to the whole process group as a terminal does."""
    (tmp_path / "demo.yaml").write_text(
        "workloads: [trace1, trace2, trace3, trace4]\nschedulers: [fcfs, dfs, random]\n"
        "num_requests: 20000\nseeds: [0, 1, 2, 3]\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "bssim", "sweep", "demo.yaml", "--jobs", "2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background jobs ignore it, and so would what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    cells = tmp_path / "results" / "demo" / "cells"
    deadline = time.monotonic() + 60
    while not list(cells.glob("*.json")) and process.poll() is None:
        assert time.monotonic() < deadline, "no cell finished in a minute"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "run the same command again to resume" in err
    assert "Traceback" not in err
    runs = pd.read_csv(tmp_path / "results" / "demo" / "runs.csv")
    assert len(runs) == 48
    assert (runs["status"] == "ok").sum() >= 1
    assert (runs["status"] == "skipped").sum() >= 1


def test_a_pool_larger_than_memory_is_one_line(shell: Shell) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, limits[1]))
    try:
        out, err = shell("simulate", "-w", "openvid", "-n", 10**9, expect=2)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert out == ""
    assert err.count("\n") == 1
    assert "out of memory" in err
    assert "--num-requests" in err


@pytest.mark.parametrize("option", ["--steps", "--schedule"])
def test_a_full_disk_is_one_line(shell: Shell, option: str) -> None:
    Path("full").symlink_to("/dev/full")  # a link: the device itself is safe from a wrong replace
    out, err = shell(*SIMULATE, option, "full", expect=2)
    assert (out, err) == ("", "error: full: No space left on device\n")


def test_a_file_that_grows_too_large_is_one_line(shell: Shell) -> None:
    batch = batch_file(60)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        _, err = shell("plan", batch, "-o", "o.jsonl", "--tokenizer", "bytes:4", expect=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert err == "error: o.jsonl: File too large\n"


@pytest.mark.parametrize("option", ["--steps", "--schedule", "--timeline"])
@pytest.mark.parametrize("link", [False, True])
def test_simulate_does_not_overwrite_its_input(shell: Shell, option: str, link: bool) -> None:
    trace = Path("t.parquet")  # the name says nothing to a reader, and --timeline wants this one
    trace.write_text("prompt_tokens,output_tokens\n10,5\n")
    out = Path("link.parquet") if link else trace
    if link:
        out.hardlink_to(trace)
    _, err = shell("simulate", "-w", trace, option, out, expect=2)
    assert (
        err == f"error: {option}: found '{out}', the workload file itself; expected another file\n"
    )
    assert trace.read_text() == "prompt_tokens,output_tokens\n10,5\n"


def test_simulate_does_not_write_two_outputs_to_one_file(shell: Shell) -> None:
    _, err = shell(*SIMULATE, "--steps", "o.jsonl", "--schedule", Path.cwd() / "o.jsonl", expect=2)
    assert "o.jsonl', the file of --steps; expected another file" in err
    assert not Path("o.jsonl").exists()


def test_a_trace_is_not_converted_onto_itself(shell: Shell, tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("prompt_tokens,output_tokens,note\n10,5,mine\n")
    _, err = shell("workload", "convert", trace, trace, expect=2)
    assert "OUT: found" in err
    assert "the trace itself" in err
    assert "mine" in trace.read_text()


def test_bssim_alone_and_a_group_alone_print_their_help(shell: Shell) -> None:
    assert "simulate" in shell()[0]
    assert shell("-h")[0] == shell("--help")[0] == shell()[0]
    assert "describe" in shell("workload")[0]
    assert "--scheduler" in shell("simulate", "-h")[0]


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = [sys.executable, "-m", "bssim", "models"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as run:
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.close()
        assert (run.wait(60), run.stderr.read()) == (0, b"")


def test_a_dry_run_lists_the_cells_and_runs_none(shell: Shell) -> None:
    write_sweep("workload: trace1\nschedulers: [fcfs, dfs]\nnum_requests: 300\ndp: [1, 2]\n")
    out, err = shell("sweep", "demo.yaml", "--dry-run")
    assert err == "4 cells to run; to start, repeat the command without --dry-run\n"
    assert out.splitlines() == [
        "demo: 4 cells",
        *(f"  trace1 {s}, dp={dp}" for dp in (1, 2) for s in ("fcfs", "dfs")),
    ]
    rows = shell.json("sweep", "demo.yaml", "--dry-run")
    assert [row["dp"] for row in rows] == [1, 1, 2, 2]
    assert not Path("results").exists()
    write_sweep()
    shell("sweep", "demo.yaml", "-q", "--no-figures", "-n", 200)
    _, err = shell("sweep", "demo.yaml", "--dry-run", "-n", 200)
    assert err.startswith("0 cells to run (2 finished earlier); ")


def test_quiet_still_prints_errors(shell: Shell) -> None:
    write_sweep(
        "workload: trace1\nscheduler: fcfs\nnum_requests: 300\n"
        "engine: {preset: vllm, max_model_len: 3}\n"
    )
    _, err = shell("sweep", "demo.yaml", "-q", expect=1)
    assert "max_model_len" in err
    assert "1 of 1 cell failed" in err


def test_a_sweep_prints_the_answer(shell: Shell) -> None:
    write_sweep()
    out, _ = shell("sweep", "demo.yaml", "-q", "--no-figures")
    lines = out.splitlines()
    head = "| workload | fastest | tokens/s | over dfs | over fcfs | of bound | of optimum |"
    assert lines[0] == head
    assert lines[-1].startswith("The fastest order is `")
    summary = Path("results/demo/summary.md").read_text()
    assert lines[-1] in summary
    assert f"{head}\n{lines[1]}\n{lines[2]}\n" in summary


def test_the_answer_of_a_sweep_fits_the_terminal() -> None:
    setting = "llama-3-8b on h100-sxm, vllm, sequential overlap, max_num_seqs={}, tp={}"
    rows = [
        {
            "setting": setting.format(seqs, 2),
            "workload": "azure2023_code",
            "fastest": "dfs_compute_first",
            "tokens_s": 123_456.0,
            "share_of_bound": 0.9,
            "share_of_optimum": 0.8,
            "over_dfs": 1.0,
            "over_fcfs": float("nan"),
        }
        for seqs in (128, 512)
    ]
    console = Console(width=80, highlight=False)
    with console.capture() as captured:
        console.print(winners_table(pd.DataFrame(rows), 80))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.startswith("All: llama-3-8b on h100-sxm, vllm, sequential overlap, tp=2")
    assert "512" in text


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("sim", ["simulate"]),
        ("compare -s blend", ["blendserve", "blendserve_adaptive"]),
        ("support --hardware h100", ["h100-pcie", "h100-sxm"]),
        ("costs -m ./mine", []),  # the shell then offers files
    ],
)
def test_bash_completes_commands_and_names(typed: str, completed: list[str]) -> None:
    words = f"bssim {typed}"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    run = subprocess.run(
        [sys.executable, "-m", "bssim"],
        env=os.environ
        | asked
        | {"PYTHONPATH": str(ROOT / "src"), "_BSSIM_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == completed


def test_notes_of_one_file_do_not_repeat_its_name(shell: Shell) -> None:
    Path("b.csv").write_text("prompt_tokens,output_tokens\n" + "10,5\n" * 1200 + "0,5\n")
    _, err = shell("workload", "describe", "b.csv")
    assert err == "note: 1 of 1,201 requests dropped: no prompt or no output\n"


def test_restore_ends_with_how_many_results_are_errors(shell: Shell) -> None:
    Path("in.jsonl").write_text("".join(f'{{"custom_id": "{i}", "body": {{}}}}\n' for i in "ab"))
    good = {"custom_id": "a", "response": {"status_code": 200}}
    bad = {"custom_id": "b", "response": {"status_code": 500}}
    Path("out.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    _, err = shell("restore", "in.jsonl", "out.jsonl", "-o", "r.jsonl", expect=1)
    assert err == "failed: 1 (b)\nwrote 2 of 2 results to r.jsonl, 1 of them errors\n"


def test_usage_names_arguments_in_capitals(shell: Shell) -> None:
    assert shell("restore", "-h")[0].startswith("Usage: bssim restore [OPTIONS] BATCH RESULTS...")
