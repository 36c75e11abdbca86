"""The sweep file: what it accepts, and what it says about what it does not."""

import re
from pathlib import Path

import pytest

from bssim.errors import InputError
from bssim.experiments.sweeps import SweepFile, read_sweep_file

GOOD = "workloads: trace1\nschedulers: [fcfs, dfs]\n"


def read(tmp_path: Path, text: str) -> SweepFile:
    path = tmp_path / "demo.yaml"
    path.write_text(text)
    return read_sweep_file(path)


def complaint(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{tmp_path}/")


def test_one_value_is_a_list_of_one_and_the_stem_is_the_name(tmp_path: Path) -> None:
    sweep = read(tmp_path, GOOD)
    assert sweep.name == "demo"
    assert sweep.config.workloads == ("trace1",)
    assert sweep.config.schedulers == ("fcfs", "dfs")
    assert sweep.config.seeds == (0,)


@pytest.mark.parametrize("field", ["model: qwen-2.5-7b", "models: [qwen-2.5-7b]"])
def test_singular_and_plural_are_the_same_field(tmp_path: Path, field: str) -> None:
    assert read(tmp_path, GOOD + field).config.models == ("qwen-2.5-7b",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD + "schedullers: [dfs]", r"demo.yaml:3: schedullers: .*did you mean 'schedulers'\?"),
        (GOOD + "seed: 1\nseeds: [2]", r"demo.yaml:3: seed: found beside 'seeds'"),
        (GOOD + "seed: 1\nseed: 2", r"demo.yaml:4: 'seed' is given twice; first on line 3"),
        (
            GOOD + "seeds: [0, one]",
            r"demo.yaml:3: seeds\[1\]: found 'one'; expected a valid integer",
        ),
        (GOOD + "tp: 0", r"demo.yaml:3: tp: found 0; expected greater than or equal to 1"),
        (GOOD + "tp: 1" + "0" * 20, r"demo.yaml:3: tp: found 10+; expected less than or equal to"),
        (GOOD + "pp: 1" + "0" * 20, r"demo.yaml:3: pp: found 10+; expected less than or equal to"),
        (GOOD + "seed: 1" + "0" * 20, r"demo.yaml:3: seed: found 10+; expected less than 9"),
        (
            GOOD + "num_requests: 1" + "0" * 20,
            r"demo.yaml:3: num_requests: found 10+; expected less",
        ),
        (
            GOOD + "num_requests: 4e5",
            r"demo.yaml:3: num_requests: found '4e5'; expected a valid int",
        ),
        (
            GOOD + "timeline: sometimes",
            r"demo.yaml:3: timeline: found 'sometimes'; expected a valid",
        ),
        (
            GOOD + "on_oversize: dropp",
            r"demo.yaml:3: on_oversize: found 'dropp'; expected 'error' or",
        ),
        (
            GOOD + "hardware: []",
            r"demo.yaml:3: hardware: found an empty list; expected at least one",
        ),
        (GOOD + "name: a/b", r"demo.yaml:3: name: found 'a/b'; expected letters, digits and \. _"),
        (GOOD + "name: ..", r"demo.yaml:3: name: found '\.\.'; expected .*, starting with"),
        (GOOD + "name: .", r"demo.yaml:3: name: found '\.'; expected letters"),
        (GOOD + "name: -x", r"demo.yaml:3: name: found '-x'; expected letters"),
        (GOOD + "engine: 3", r"demo.yaml:3: engine: found 3; expected an engine: a preset, or a m"),
        ("scheduler: dfs\nworkloads: 5", r"demo.yaml:2: workloads: found 5; expected a workload: "),
        (GOOD + "x: &x {y: *x}", r"demo.yaml:3: found an alias inside what it names"),
        (GOOD + "name: 2020-13-45", r"demo.yaml: not valid YAML: month must be in"),
        (GOOD + "name: " + "[" * 3000 + "]" * 3000, r"demo.yaml: not valid YAML: nested too deep"),
        ("workloads: trace1\n", r"demo.yaml: schedulers: missing"),
        ("- trace1\n", r"demo.yaml: found list; expected a mapping"),
        ("", r"demo.yaml: found NoneType; expected a mapping"),
        ("workloads: [trace1\nschedulers: dfs\n", r"demo.yaml:\d:\d+: not valid YAML: "),
        (
            "scheduler: dfs\nworkloads:\n  - trace1\n  - mix: {densty: 1.0, sharing_target: 0.2}\n",
            r"demo.yaml:4: workloads\[1\].mix.densty: .*did you mean 'density'",
        ),
        (
            "schedulers: dfs\nworkloads:\n  - mix: {density: -1, sharing_target: 0.2}\n",
            r"demo.yaml:3: workloads\[0\].mix.density: found -1; expected greater than 0",
        ),
        (
            "schedulers: dfs\nworkloads:\n  - {source: a.csv, fmt: azure}\n",
            r"demo.yaml:3: workloads\[0\].fmt: .*did you mean 'format'\?",
        ),
    ],
)
def test_a_wrong_file_is_answered_with_line_field_value_and_expectation(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert re.match(expected, complaint(tmp_path, text)), complaint(tmp_path, text)


def test_variables_of_the_environment_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BSSIM_TRACES", "/traces")
    sweep = read(
        tmp_path, "workloads: [$BSSIM_TRACES/a.csv, '${BSSIM_TRACES}x.csv']\nscheduler: dfs"
    )
    assert sweep.config.workloads == ("/traces/a.csv", "/tracesx.csv")


def test_an_unset_or_empty_variable_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "scheduler: dfs\nworkloads: [trace1, $BSSIM_TRACES/a.csv]\n"
    monkeypatch.delenv("BSSIM_TRACES", raising=False)
    message = complaint(tmp_path, text)
    assert re.match(r"demo.yaml:2: workloads\[1\]: .*BSSIM_TRACES is not set", message)
    monkeypatch.setenv("BSSIM_TRACES", "")
    assert complaint(tmp_path, text) == message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"none\.yaml: cannot be read: No such file or directory; e"
    ):
        read_sweep_file(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"cannot be read: Is a directory; expected a YAML sweep"):
        read_sweep_file(tmp_path)


def test_files_are_looked_for_beside_the_config_and_names_are_left_alone(tmp_path: Path) -> None:
    sweep = read(tmp_path, GOOD)
    assert sweep.resolve("pool.csv") == str(tmp_path / "pool.csv")
    assert sweep.resolve("/abs/pool.csv") == "/abs/pool.csv"
    assert sweep.resolve("qwen-2.5-7b") == "qwen-2.5-7b"
