"""What the documents promise: every command is documented, and every example runs."""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest
import typer
import yaml

from bssim.experiments.cli import app, main

ROOT = Path(__file__).parents[1]
SMALL = {"sweep", "simulate", "reproduce", "describe", "convert"}
"""Commands that take --num-requests: examples are run on small pools."""
NEEDS_A_MACHINE = {"run", "replay", "validate", "calibrate"}
"""Commands that need an engine or a device: their examples are only parsed."""


def leaf_commands() -> Iterator[tuple[str, "typer.core.TyperCommand"]]:
    top = typer.main.get_command(app)
    for name, command in top.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {sub}", leaf) for sub, leaf in command.commands.items())
        else:
            yield name, command


COMMANDS = dict(leaf_commands())


def examples(*files: str) -> list[tuple[str, str]]:
    """Return (file, line) of every bssim line in the bash blocks of documents."""
    found = []
    for file in files:
        text = (ROOT / file).read_text() if (ROOT / file).exists() else ""
        for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.partition("  #")[0].removeprefix("$ ").strip()
                if command.startswith("bssim "):
                    found.append((file, command))
    return found


def command_name(arguments: list[str]) -> str:
    return " ".join(arguments[:2]) if arguments[0] == "workload" else arguments[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_and_has_an_example_in_its_help(name: str) -> None:
    headings = [
        line for line in (ROOT / "docs/cli.md").read_text().splitlines() if line.startswith("## ")
    ]
    assert any(re.search(rf"\bbssim {name}\b", heading) for heading in headings), headings
    help_text = COMMANDS[name].help or ""
    assert f"  bssim {name}" in help_text.partition("Example:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    for parameter in COMMANDS[name].params:
        assert parameter.name == "help" or parameter.help, parameter.name


def test_help_reads_well_in_80_columns(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in ([], ["workload"], *([*name.split(), "--help"] for name in COMMANDS)):
        with pytest.raises(SystemExit):
            main(arguments)
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 80, arguments
        summaries = text.partition("Commands:")[2]
        assert "..." not in summaries, "a command's first sentence is too long"


def help_examples() -> list[tuple[str, str]]:
    lines = []
    for name, command in COMMANDS.items():
        text = (command.help or "").partition("Example:")[2]
        lines += [(f"{name} --help", line.strip()) for line in text.splitlines() if line.strip()]
    return lines


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that examples name."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(ROOT / "configs", folder / "configs")
    rows = [{"id": f"r{i}", "prompt_token_ids": [1, 2, i], "output_tokens": 5} for i in range(400)]
    (folder / "pool.jsonl").write_text("".join(f"{row}\n".replace("'", '"') for row in rows))
    body = '{{"model":"m","messages":[{{"role":"user","content":"question {0}"}}],"max_tokens":9}}'
    (folder / "batch.jsonl").write_text(
        "".join(
            f'{{"custom_id":"c{i}","method":"POST","url":"/v1/chat/completions",'
            f'"body":{body.format(i)}}}\n'
            for i in range(40)
        )
    )
    (folder / "results.jsonl").write_text(
        "".join(
            f'{{"custom_id":"c{i}","response":{{"status_code":200,'
            f'"body":{{"usage":{{"completion_tokens":5}}}}}},"error":null}}\n'
            for i in reversed(range(40))
        )
    )
    (folder / "azure2023_conv.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        + "".join(
            f"2023-11-16 18:{i // 60:02}:{i % 60:02}.0,{100 + i},{20 + i}\n" for i in range(400)
        )
    )
    return folder


def test_examples_of_readme_docs_and_help_run(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One test in document order: later examples use what earlier ones wrote."""
    monkeypatch.chdir(workplace)
    done: set[str] = set()
    for where, line in [
        *examples("README.md", "docs/cli.md", "docs/tutorial.md"),
        *help_examples(),
    ]:
        arguments = shlex.split(line)[1:]
        name = command_name(arguments)
        assert name in COMMANDS, f"{where}: {line}"
        if line in done or name in NEEDS_A_MACHINE:
            continue
        done.add(line)
        if name.split()[-1] in SMALL and "--num-requests" not in line:
            arguments += ["--num-requests", "300"]
        expanded = [path for a in arguments for path in (sorted(glob(a)) if "*" in a else [a])]
        with pytest.raises(SystemExit) as exit_:
            main(expanded)
        assert not exit_.value.code, f"{where}: {line}\n{capsys.readouterr().err}"
    assert done


def test_the_python_examples_of_the_tutorial_run(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    text = (ROOT / "docs/tutorial.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/tutorial.md", "exec"), {})


def test_the_citation_has_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == project["version"]
    assert (
        f"## [{project['version']}] - {citation['date-released']}"
        in (ROOT / "CHANGELOG.md").read_text()
    )


def test_the_architecture_page_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:sim|cost_models|backends|experiments|src|tests)/[\w/.]*)`", page)
    assert len(named) > 30
    assert [path for path in named if not (ROOT / path).exists()] == []
