"""The KV caches of the replicas of one simulation: radix for blocks of one token, else blocks."""

from collections.abc import Callable
from functools import partial

from bssim.sim.engine.block_cache import BlockCache, BlockPaths
from bssim.sim.engine.config import EngineConfig
from bssim.sim.engine.kv_cache import KVCache
from bssim.sim.engine.radix_cache import RadixCache, RadixPaths
from bssim.sim.workload import Workload


def cache_maker(workload: Workload, engine: EngineConfig, blocks: int) -> Callable[[], KVCache]:
    """Return a function that makes empty caches of ``blocks``, which share the prefix tree."""
    size = engine.block_size
    options = {
        "caching": engine.enable_prefix_caching,
        "retain": engine.prefix_retention == "lru",
    }
    if size == 1:
        return partial(RadixCache, RadixPaths(workload), blocks, **options)
    return partial(BlockCache, BlockPaths(workload, size), blocks, **options)
