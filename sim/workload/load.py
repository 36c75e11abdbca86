"""The entry point: load a workload by name or from a file."""

import os
import re
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from bssim.cost_models.density import DensityConstants
from bssim.errors import InputError, unknown_name
from bssim.sim.workload.combine import subsample
from bssim.sim.workload.readers import AS_WRITTEN, ReaderOptions, read_workload
from bssim.sim.workload.sources import SOURCE_NAMES, FileSource, Source, builtin_source
from bssim.sim.workload.synthesis import DEFAULT_NUM_REQUESTS, TRACES, MixSpec, mix
from bssim.sim.workload.workload import Workload, make_workload

WORKLOAD_NAMES = (*TRACES, *SOURCE_NAMES)
"""The names that :func:`load_workload` knows, in addition to `FIXED`; anything else is a file."""

FIXED = re.compile(r"fixed:([1-9]\d*)x([1-9]\d*)")
"""``fixed:PxD``: requests with P prompt and D output tokens that share nothing, as engine
benchmarks send them."""

MOST_NUM_REQUESTS = 2**31 - 1
"""The largest pool: its parts are numbered with 32 bits."""


def load_workload(
    name_or_path: str | Path,
    options: ReaderOptions = AS_WRITTEN,
    *,
    num_requests: int | None = None,
    seed: int = 0,
) -> Workload:
    """Return a workload by name or from a file; the same arguments give the same arrays.

    ``trace1`` .. ``trace4``, the built-in sources and ``fixed:PxD`` have ``num_requests`` requests
    (default: 400,000). A file has its own requests. A smaller ``num_requests`` samples them without
    replacement and keeps the file's order. ``options`` apply to files only.

    Raises InputError for a name that is neither known nor a file (and names the nearest known
    one), for an option given with a built-in name, and for errors in the file.
    """
    _check_count(num_requests)
    name = str(name_or_path)
    if is_builtin(name):
        for option, value in asdict(options).items():
            if value is not None:
                raise InputError(option, repr(value), f"none: {name} is not a file")
        count = num_requests or DEFAULT_NUM_REQUESTS
        if lengths := FIXED.fullmatch(name):
            prompt, output = map(int, lengths.groups())
            return make_workload(name, np.full(count, prompt), np.full(count, output))
        if name in TRACES:
            return load_mix(TRACES[name], num_requests=num_requests, seed=seed, name=name)
        source = builtin_source(name)
        rng = np.random.default_rng(seed)
        drawn = source.draw(count, rng)
        return replace(drawn, notes=source.report(drawn))
    check_source(name, WORKLOAD_NAMES)
    workload = read_workload(name, options)
    if num_requests is None:
        return workload
    if num_requests > len(workload):
        raise InputError(
            "num_requests",
            num_requests,
            f"at most the {len(workload)} requests of {name} (only a mix may repeat requests)",
        )
    return subsample(workload, num_requests, np.random.default_rng(seed))


def load_mix(
    spec: MixSpec,
    *,
    num_requests: int | None = None,
    seed: int = 0,
    name: str = "mix",
    constants: DensityConstants | None = None,
) -> Workload:
    """Return a mix whose sources are names or files; see :func:`bssim.sim.workload.synthesis.mix`.

    ``num_requests`` defaults to 400,000. Raises InputError as :func:`load_workload` and ``mix`` do.
    """
    _check_count(num_requests)
    return mix(
        spec,
        (
            open_source(spec.compute_source),
            open_source(spec.memory_source),
            open_source(spec.sharing_source),
        ),
        num_requests=num_requests or DEFAULT_NUM_REQUESTS,
        rng=np.random.default_rng(seed),
        name=name,
        constants=constants,
    )


def is_builtin(name: str) -> bool:
    """Return whether bssim generates this workload, as opposed to reading it from a file."""
    return name in WORKLOAD_NAMES or FIXED.fullmatch(name) is not None


def open_source(name_or_path: str) -> Source:
    """Return the built-in source with this name, or else the requests of a trace file."""
    if name_or_path in SOURCE_NAMES:
        return builtin_source(name_or_path)
    check_source(name_or_path, SOURCE_NAMES)
    return FileSource(read_workload(name_or_path))


def check_source(name: str, names: Iterable[str], where: str = "workload") -> None:
    """Raise InputError unless ``name`` is one of ``names`` or a file; read nothing.

    The message starts with ``where``. If ``name`` does not look like a path, the message suggests
    the nearest name.
    """
    path, known = Path(name), sorted(names)
    folder = os.path.isdir(name)  # False, not an error, for a name that is too long
    if name in known or (os.path.exists(name) and not folder):
        return
    expected = f"a trace file, or one of: {', '.join(known)}"
    if folder:
        raise InputError(where, f"{name!r}, a folder", expected)
    if "/" in name or path.suffix:
        raise InputError(where, f"{name!r}, but there is no such file", expected)
    error = unknown_name(where, name, known)
    raise error.saying(where, error.problem, f"{error.expected}, or a trace file")


def _check_count(num_requests: int | None) -> None:
    if num_requests is not None and num_requests < 1:
        raise InputError("num_requests", num_requests, "at least 1")
    if num_requests is not None and num_requests > MOST_NUM_REQUESTS:
        raise InputError("num_requests", num_requests, f"at most {MOST_NUM_REQUESTS:,}")
