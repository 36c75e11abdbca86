"""Broken inputs: refused in one line, without a traceback, a hang or a full memory."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bssim.errors import InputError
from bssim.experiments.cli import main
from bssim.experiments.plots import draw_figures
from bssim.experiments.sweeps import Results
from bssim.sim.workload.readers import read_workload
from tests.faults import commands, fields
from tests.faults.readers import ALONE, SEEDS, reader_of, run

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "workload": ("simulate", "-w", "FILE.csv"),
    "model": ("simulate", "-w", "trace1", "-n", "9", "-m", "FILE.json"),
    "hardware": ("simulate", "-w", "trace1", "-n", "9", "--hardware", "FILE.yaml"),
    "cost model": ("simulate", "-w", "trace1", "-n", "9", "--cost-model", "fitted:FILE.yaml"),
    "sweep": ("sweep", "FILE.yaml"),
    "compare": ("compare", "FILE.jsonl"),
    "restore": ("restore", "FILE.jsonl", "FILE.jsonl", "-o", "out.jsonl"),
    "describe": ("workload", "describe", "FILE.jsonl"),
}


def test_random_damage_is_refused_or_read() -> None:
    counts, wrong = run(cases=1000, seed=1)
    assert wrong == []
    assert counts["read"] > 50
    assert counts["refused"] > 500


def test_random_commands_on_damaged_files_are_answered_or_refused() -> None:
    counts, wrong = commands.run(cases=20, seed=1)
    assert wrong == []
    assert counts["exit status 0"] > 1
    assert counts["exit status 2"] > 5


def test_a_wrong_value_in_one_field_is_refused_or_read() -> None:
    counts, wrong = fields.run(every=60)
    assert wrong == []
    assert counts["read"] > 100
    assert counts["refused"] > 300


def bssim(arguments: tuple[str, ...], folder: Path) -> str:
    """Run a command that must fail with one line; 60 s are far more than it takes."""
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr.count("\n")) == (2, 1), run.stderr[-2000:]
    assert run.stderr.startswith("error: ")
    assert len(run.stderr) < 2500
    return run.stderr


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from bssim.experiments.cli import main
main()
"""


@pytest.mark.parametrize("option", OPTIONS)
def test_a_pipe_without_a_writer_is_refused(option: str, tmp_path: Path) -> None:
    for ending in ("csv", "json", "jsonl", "yaml"):
        os.mkfifo(tmp_path / f"FILE.{ending}")
    assert "nobody writes to" in bssim(OPTIONS[option], tmp_path)


def test_a_loop_of_links_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = tmp_path / "schedule.jsonl"
    loop.symlink_to(loop)
    steps = str(tmp_path / "steps.jsonl")
    with pytest.raises(SystemExit) as end:
        main(["simulate", "-w", "trace1", "-n", "3", "--schedule", str(loop), "--steps", steps])
    assert end.value.code == 2
    assert "schedule.jsonl: Too many levels" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["workload", "model", "sweep"])
def test_a_device_without_an_end_is_refused(option: str, tmp_path: Path) -> None:
    for ending in ("csv", "json", "yaml"):
        (tmp_path / f"FILE.{ending}").symlink_to("/dev/zero")
    assert "a NUL byte at 0; expected text" in bssim(OPTIONS[option], tmp_path)


def bomb() -> bytes:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    return "\n".join(lines).encode()


@pytest.mark.parametrize("name", [name for name in ALONE if name.endswith(".yaml")])
def test_aliases_that_expand_without_end_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(bomb())
    with pytest.raises(InputError, match="aliases counted"):
        reader_of(name)(path)


@pytest.mark.parametrize("name", ALONE)
def test_a_line_of_100_mb_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    seed = SEEDS[name].splitlines()[0] + b"\n"
    path.write_bytes(seed + b"x" * 100_000_000)
    with pytest.raises(InputError) as error:
        reader_of(name)(path)
    assert len(str(error.value)) < 1000


def test_a_file_of_blank_lines_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\n" * 50_000_000)
    with pytest.raises(InputError, match="an empty file"):
        read_workload(path)
    row = json.dumps({"prompt_token_ids": [1], "output_tokens": "x"})
    path.write_bytes(SEEDS["ids.jsonl"] + b"\n" * 10_000_000 + row.encode())
    with pytest.raises(InputError, match=":10000002: output_tokens: found 'x'"):
        read_workload(path)


def test_a_gzip_file_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    line = b"prompt_tokens,output_tokens\n"
    path.write_bytes(gzip.compress(line + b"1,1\n" * 60_000_000, 9))
    with pytest.raises(InputError, match="unpacks to more than"):
        read_workload(path)
    path.write_bytes(gzip.compress(b"\0" * 10**6))
    with pytest.raises(InputError, match="a NUL byte at 0"):
        read_workload(path)
    path.write_bytes(gzip.compress(line + b"3,4\n") + gzip.compress(b"5,6\n"))
    assert read_workload(path).prompt_tokens.tolist() == [3, 5]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot be read as gzip"):
        read_workload(path)


def test_a_pipe_with_a_late_writer_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "t.csv"
    os.mkfifo(pipe)
    writer = subprocess.Popen(
        ["sh", "-c", f"sleep 0.3; printf 'prompt_tokens,output_tokens\\n3,4\\n' > '{pipe}'"]
    )
    assert read_workload(pipe).prompt_tokens.tolist() == [3]
    assert writer.wait() == 0


DAMAGE = (b"", b"{}", b"[1]", b"\xff", b"[" * 10**5, b'{"row": {"status": "ok"}}', b'{"row": 3}')


def test_a_cell_with_a_damaged_record_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo.yaml").write_text("workload: fixed:10x5\nscheduler: fcfs\nnum_requests: 9\n")
    command = ["sweep", "demo.yaml", "-j", "1", "--no-figures", "--json"]
    rows = []
    for damage in (None, *DAMAGE):
        if damage is not None:
            (record,) = Path("results/demo/cells").glob("*.json")
            record.write_bytes(damage)
        with pytest.raises(SystemExit) as exit_:
            main(command)
        out, err = capsys.readouterr()
        assert not exit_.value.code, err
        assert "1 cell to run" in err
        rows += json.loads(out)
    same = [{k: v for k, v in row.items() if not k.endswith("wall_s")} for row in rows]
    assert all(row == same[0] for row in same)


def test_figures_leave_out_a_cell_whose_record_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "workload: fixed:10x5\nschedulers: [fcfs, dfs]\nnum_requests: 9\ntimeline: true\n"
    Path("demo.yaml").write_text(text)
    with pytest.raises(SystemExit) as end:
        main(["sweep", "demo.yaml", "-j", "1", "--no-figures"])
    assert not end.value.code
    results = Results(Path("results/demo"))
    first = results.read_runs()["config_hash"].iloc[0]
    results.cell_path(first).write_bytes(b"")
    assert any(path.name.startswith("steps") for path in draw_figures(results))
