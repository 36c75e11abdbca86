"""bssim: which order of offline LLM requests is fastest on which engine, and by how much."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("bssim")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
