"""The Python API: every export works, its examples run, and importing it costs nothing."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bssim

ROOT = Path(__file__).parents[1]
FUNCTIONS = [name for name in bssim.__all__ if callable(getattr(bssim, name)) and name.islower()]
NEEDS_AN_ENGINE = {"run"}
"""Its examples need vLLM and a model: `tests/backends` runs it."""


@pytest.mark.parametrize("name", sorted({*FUNCTIONS} - NEEDS_AN_ENGINE))
def test_every_function_has_an_example_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files
    function = getattr(bssim, name)
    tests = doctest.DocTestFinder(recurse=False).find(function, name, globs={"bssim": bssim})
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert sum(result.attempted for result in results)
    assert not sum(result.failed for result in results)


@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_python_examples_of_a_page_run(page: str) -> None:
    path = ROOT / page
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {})


def test_every_export_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    for name in (*FUNCTIONS, "InputError"):
        assert f"bssim.{name}" in page


def test_importing_bssim_imports_nothing_heavy() -> None:
    code = "import bssim, sys; print(*{m.partition('.')[0] for m in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"numpy", "pandas", "scipy", "simpy", "pydantic"} & set(run.stdout.split())


def test_a_misspelt_export_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="simulat"):
        _ = bssim.simulat  # type: ignore[attr-defined]


def test_dir_lists_the_exports() -> None:
    assert set(dir(bssim)) == set(bssim.__all__)
