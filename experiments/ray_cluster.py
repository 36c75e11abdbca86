"""The Ray cluster that sweeps and replicas use."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bssim.errors import InputError


@contextmanager
def connected(option: str, value: object) -> Iterator[Any]:
    """Yield Ray on the cluster of RAY_ADDRESS, or on this machine, where it starts if needed.

    Raises InputError, which names ``option`` and its ``value``, if Ray is not installed or the
    cluster does not answer.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            option, f"{value}, but Ray is not installed", '`pip install "bssim[ray]"`'
        ) from error
    started_here = not ray.is_initialized()
    try:
        ray.init(ignore_reinit_error=True, log_to_driver=False)
    except ConnectionError as error:
        raise InputError("RAY_ADDRESS", str(error), "the address of a running cluster") from error
    try:
        yield ray
    finally:
        if started_here:
            ray.shutdown()
