"""Schedulers by name."""

from collections.abc import Callable

from bssim.errors import unknown_name
from bssim.sim.schedulers.blendserve import BlendServe
from bssim.sim.schedulers.interface import Scheduler
from bssim.sim.schedulers.lpm import Lpm
from bssim.sim.schedulers.ratio import Ratio
from bssim.sim.schedulers.static_order import Dfs, Fcfs, Random

_SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "fcfs": Fcfs,
    "random": Random,
    "dfs": Dfs,
    "dfs_compute_first": lambda: Dfs("dfs_compute_first", "compute_first"),
    "dfs_memory_first": lambda: Dfs("dfs_memory_first", "memory_first"),
    "lpm": Lpm,
    "lpm_no_cutoff": lambda: Lpm("lpm_no_cutoff", None),
    "blendserve": BlendServe,
    "ratio": Ratio,
}


def scheduler_names() -> list[str]:
    """Return the valid scheduler names."""
    return list(_SCHEDULERS)


def fixed_order_names() -> list[str]:
    """Return the schedulers whose order does not depend on what runs."""
    fixed = Fcfs | Random | Dfs
    return [name for name in _SCHEDULERS if isinstance(make_scheduler(name), fixed)]


def make_scheduler(name: str) -> Scheduler:
    """Return the scheduler of that name; InputError with the nearest name if there is none."""
    if name not in _SCHEDULERS:
        raise unknown_name("scheduler", name, _SCHEDULERS)
    return _SCHEDULERS[name]()
