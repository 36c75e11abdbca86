"""BlendServe (ASPLOS '26): the resource-aware prefix tree and the dual scan.

`planner.py` plans (tree, then blended order), and `dual_scan.py` admits at run time.
"""

from bssim.sim.schedulers.blendserve.blendserve import BlendServe
from bssim.sim.schedulers.blendserve.dual_scan import DualScan, partition_memory
from bssim.sim.schedulers.blendserve.planner import SHARING_KEPT, blend
from bssim.sim.schedulers.blendserve.resource_tree import (
    Loads,
    UnitSeconds,
    argsort_few,
    density_of,
    density_order,
    depth_first,
    request_loads,
    subtree_densities,
)

__all__ = [
    "SHARING_KEPT",
    "BlendServe",
    "DualScan",
    "Loads",
    "UnitSeconds",
    "argsort_few",
    "blend",
    "density_of",
    "density_order",
    "depth_first",
    "partition_memory",
    "request_loads",
    "subtree_densities",
]
