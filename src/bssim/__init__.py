"""bssim: which order of offline LLM requests is fastest on which engine, and by how much."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bssim.api import load_engine, load_hardware, load_model, load_workload, simulate
    from bssim.errors import InputError
    from bssim.experiments.batch.compare import compare
    from bssim.experiments.batch.plan import plan
    from bssim.experiments.batch.restore import restore
    from bssim.experiments.batch.run import run

try:
    __version__ = version("bssim")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_EXPORTS = {
    "InputError": "bssim.errors",
    "compare": "bssim.experiments.batch",
    "load_engine": "bssim.api",
    "load_hardware": "bssim.api",
    "load_model": "bssim.api",
    "load_workload": "bssim.api",
    "plan": "bssim.experiments.batch",
    "restore": "bssim.experiments.batch",
    "run": "bssim.experiments.batch",
    "simulate": "bssim.api",
}
"""Public names and the modules that define them, imported at first use (PEP 562)."""

__all__ = [
    "InputError",
    "__version__",
    "compare",
    "load_engine",
    "load_hardware",
    "load_model",
    "load_workload",
    "plan",
    "restore",
    "run",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'bssim' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
