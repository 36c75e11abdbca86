"""The front door: a workload by name or from a file."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bssim.cost_models.density import DensityConstants
from bssim.errors import InputError, unknown_name
from bssim.sim.workload.combine import subsample
from bssim.sim.workload.readers import read_workload
from bssim.sim.workload.sources import SOURCE_NAMES, FileSource, Source, builtin_source
from bssim.sim.workload.synthesis import DEFAULT_NUM_REQUESTS, TRACES, MixSpec, mix
from bssim.sim.workload.workload import Workload, make_workload

WORKLOAD_NAMES = (*TRACES, *SOURCE_NAMES)
"""The names that :func:`load_workload` knows, besides `FIXED`; anything else is a file."""

FIXED = re.compile(r"fixed:([1-9]\d*)x([1-9]\d*)")
"""``fixed:PxD``: requests of P prompt and D output tokens that share nothing, as benchmarks of
engines send them."""


def load_workload(
    name_or_path: str | Path,
    *,
    num_requests: int | None = None,
    seed: int = 0,
    format: str | None = None,
    tokenizer: str | None = None,
    default_output_tokens: int | None = None,
    max_prompt_tokens: int | None = None,
    max_output_tokens: int | None = None,
) -> Workload:
    """Return the workload of a name or a file; the same arguments give the same arrays.

    ``trace1`` .. ``trace4``, the built-in sources and ``fixed:PxD`` hold ``num_requests`` requests,
    400,000 unless given. A file holds its own; a smaller ``num_requests`` samples them without
    replacement, kept in the file's order (a mix resamples where more are needed). ``format``,
    ``tokenizer``, ``default_output_tokens`` and the caps are for files, see
    :func:`bssim.sim.workload.readers.read_workload`.

    Raises InputError for a name that is neither known nor a file, with the nearest known one, for
    a file option given with a name, and for what the reader finds wrong in the file.

    >>> len(bssim.load_workload("trace1", num_requests=1000))
    1000
    """
    _check_count(num_requests)
    name = str(name_or_path)
    file_options = {
        "format": format,
        "tokenizer": tokenizer,
        "default_output_tokens": default_output_tokens,
        "max_prompt_tokens": max_prompt_tokens,
        "max_output_tokens": max_output_tokens,
    }
    if is_builtin(name):
        for option, value in file_options.items():
            if value is not None:
                raise InputError(option, repr(value), f"none: {name} is no file")
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
    workload = read_workload(
        name,
        format=format,
        tokenizer=tokenizer,
        default_output_tokens=default_output_tokens,
        max_prompt_tokens=max_prompt_tokens,
        max_output_tokens=max_output_tokens,
    )
    if num_requests is None:
        return workload
    if num_requests > len(workload):
        raise InputError(
            "num_requests",
            num_requests,
            f"at most the {len(workload)} requests of {name} (a mix may draw them more than once)",
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

    ``num_requests`` is 400,000 unless given. Raises InputError as :func:`load_workload` and mix do.
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
    """Tell whether a workload comes with bssim: it is made, not read from a file."""
    return name in WORKLOAD_NAMES or FIXED.fullmatch(name) is not None


def open_source(name_or_path: str) -> Source:
    """Return the built-in source of a name, else the requests of a trace file as a source."""
    if name_or_path in SOURCE_NAMES:
        return builtin_source(name_or_path)
    check_source(name_or_path, SOURCE_NAMES)
    return FileSource(read_workload(name_or_path))


def check_source(name: str, names: Iterable[str], where: str = "workload") -> None:
    """Raise InputError unless ``name`` is one of ``names`` or a file; nothing is read.

    The message starts with ``where`` and, for what does not look like a path, has the nearest name.
    """
    path, known = Path(name), sorted(names)
    if name in known or (path.exists() and not path.is_dir()):
        return
    expected = f"a trace file, or one of: {', '.join(known)}"
    if name and path.is_dir():
        raise InputError(where, f"{name!r}, a folder", expected)
    if "/" in name or path.suffix:
        raise InputError(where, f"{name!r}, but there is no such file", expected)
    error = unknown_name(where, name, known)
    raise error.saying(where, error.problem, f"{error.expected}, or a trace file")


def _check_count(num_requests: int | None) -> None:
    if num_requests is not None and num_requests < 1:
        raise InputError("num_requests", num_requests, "at least 1")
