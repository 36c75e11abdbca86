"""`ratio`: hold the ratio of compute to memory in every step.

`ratio.py` puts the parts together: the order, the queues, the pace, and what it learns while it
runs. To add a variant with one part removed, add a line to `RATIO_VARIANTS`.
"""

from bssim.sim.schedulers.ratio.options import RATIO_VARIANTS, RatioOptions
from bssim.sim.schedulers.ratio.ratio import Ratio
from bssim.sim.schedulers.ratio.small_pools import MOST_REQUESTS

__all__ = [
    "MOST_REQUESTS",
    "RATIO_VARIANTS",
    "Ratio",
    "RatioOptions",
]
