"""Settings of every test run."""

import importlib.util

import pytest
from hypothesis import settings

settings.register_profile("bssim", deadline=None)  # a busy machine is not a failure
settings.load_profile("bssim")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs torch where there is none: `make conformance` runs it."""
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="needs torch: make conformance runs it"))
