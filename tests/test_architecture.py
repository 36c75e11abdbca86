"""The house rules that a reader of one file cannot see broken: who imports whom, and when."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("cost_models", "sim", "backends", "experiments")
"""From the bottom up: a layer imports itself and those before it."""
HEAVY = {"torch", "vllm", "ray", "tokenizers", "aiconfigurator", "aiconfigurator_core"}
MAX_LINES = 450
MAX_FUNCTION_LINES = 80
FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module == "bssim":
        return [f"bssim.{alias.name}" for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["bssim", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


def exported_names(path: Path) -> set[str]:
    """Return the names in a literal `__all__`."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


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


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_function_fits_a_screen(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports for type checkers and inside functions count: a reader follows them too."""
    modules = {module_name(path): path for path in FILES}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = (f"{node.module}.{alias.name}" for alias in node.names)
                found = {target if target in modules else node.module for target in inner}
                graph[module] |= {target for target in found if target in modules} - {module}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


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


def test_a_folder_that_exports_names_is_imported_as_a_whole() -> None:
    files = {module_name(path) for path in FILES if path.name != "__init__.py"}
    exports = {
        module_name(path): (path.parent, exported_names(path))
        for path in FILES
        if path.name == "__init__.py" and exported_names(path)
    }
    assert {"bssim.cost_models.hardware", "bssim.sim.engine"} <= exports.keys()
    for path in FILES:
        rooms = {room: names for room, (at, names) in exports.items() if at not in path.parents}
        for node in ast.walk(ast.parse(path.read_text())):
            for module in imported_modules(node):
                room = next((room for room in rooms if module.startswith(f"{room}.")), None)
                assert room is None or module not in files, f"{path}: {module} is a file of {room}"
            if isinstance(node, ast.ImportFrom) and node.module in rooms:
                unknown = {
                    alias.name
                    for alias in node.names
                    if f"{node.module}.{alias.name}" in files
                    and alias.name not in rooms[node.module]
                }
                assert not unknown, f"{path}: {node.module} does not export {unknown}"
