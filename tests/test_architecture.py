"""The house rules that a reader of one file cannot see broken: who imports whom, and when."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("cost_models", "sim", "backends", "experiments")
"""From the bottom up: a layer imports itself and those before it."""
HEAVY = {"torch", "vllm", "ray", "tokenizers", "aiconfigurator", "aiconfigurator_core"}
MAX_LINES = 450
FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module == "bssim":
        return [f"bssim.{alias.name}" for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_run_one_way(path: Path) -> None:
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    for node in ast.walk(ast.parse(path.read_text())):
        for module in imported_modules(node):
            parts = module.split(".")
            assert parts[0] not in LAYERS, f"{module}: import bssim.{module}"
            if parts[0] == "bssim" and len(parts) > 1 and parts[1] in LAYERS:
                assert LAYERS.index(parts[1]) <= layer, f"line {node.lineno}: {module}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_packages_are_imported_inside_functions(path: Path) -> None:
    for node in at_import(ast.parse(path.read_text())):
        heavy = HEAVY.intersection(module.split(".")[0] for module in imported_modules(node))
        assert not heavy, f"line {node.lineno}: {heavy}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_the_package_is_the_four_folders() -> None:
    package = ROOT / "src" / "bssim"
    for layer in LAYERS:
        link = package / layer
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
        assert link.resolve() == ROOT / layer


def test_the_command_line_starts_without_the_slow_packages() -> None:
    slow = HEAVY | {"numpy", "pandas", "matplotlib", "scipy", "pydantic", "joblib", "simpy"}
    code = (
        "import sys; import bssim.experiments.cli; "
        f"print(*sorted({slow!r} & {{m.partition('.')[0] for m in sys.modules}}))"
    )
    paths = {"PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(
        [sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []
