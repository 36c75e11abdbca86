"""Schedulers by name. To add one, add a file to this folder and a line to `_SCHEDULERS`."""

from collections.abc import Callable

from bssim.errors import unknown_name
from bssim.sim.schedulers.blendserve import BlendServe
from bssim.sim.schedulers.interface import Scheduler
from bssim.sim.schedulers.lpm import Lpm
from bssim.sim.schedulers.ratio import RATIO_VARIANTS, Ratio
from bssim.sim.schedulers.static_order import Dfs, Fcfs, FixedOrder, Random

_SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "fcfs": Fcfs,
    "random": Random,
    "dfs": Dfs,
    "dfs_compute_first": lambda: Dfs("dfs_compute_first", "compute_first"),
    "dfs_memory_first": lambda: Dfs("dfs_memory_first", "memory_first"),
    "lpm": Lpm,
    "lpm_no_cutoff": lambda: Lpm("lpm_no_cutoff", None),
    "blendserve": BlendServe,
    "blendserve_adaptive": lambda: BlendServe("blendserve_adaptive", adaptive=True),
    "ratio": Ratio,
}

ABOUT = {
    "fcfs": "the order of the pool",
    "random": "uniformly random",
    "dfs": "depth-first over the prefix tree: the most sharing",
    "dfs_compute_first": "dfs; of children, those with the most compute per read first",
    "dfs_memory_first": "dfs; of children, those with the least compute per read first",
    "lpm": "longest cached prefix first; fcfs above 128 waiting, as in SGLang",
    "lpm_no_cutoff": "longest cached prefix first",
    "blendserve": "BlendServe's resource-aware tree and dual scan, as published",
    "blendserve_adaptive": "blendserve with changes beyond the paper",
    "ratio": "compute in every step in proportion to its memory reads",
}
"""What each scheduler does, in one line."""


def scheduler_names() -> list[str]:
    """Return the valid scheduler names, without `variant_names`."""
    return list(_SCHEDULERS)


def fixed_order_names() -> list[str]:
    """Return the schedulers whose order is fixed before the run."""
    return [name for name in _SCHEDULERS if isinstance(make_scheduler(name), FixedOrder)]


def variant_names() -> list[str]:
    """Return the names of the `ratio` variants with one part removed, for ablations."""
    return [f"ratio:{variant}" for variant in RATIO_VARIANTS]


def make_scheduler(name: str) -> Scheduler:
    """Return the scheduler or variant of that name. Raises InputError with the nearest name."""
    if name in _SCHEDULERS:
        return _SCHEDULERS[name]()
    if name in variant_names():
        return Ratio(name, RATIO_VARIANTS[name.removeprefix("ratio:")])
    near = variant_names() if name.startswith("ratio:") else scheduler_names()
    raise unknown_name("scheduler", name, near)
