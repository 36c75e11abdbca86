"""One replica: the scheduler loop, its running requests and its KV cache.

`EngineCore` is the loop. It asks an `AdmissionPolicy` which request is next. `EngineConfig` holds
the limits of an engine. To add an engine, write `presets/NAME.yaml`; to add a limit, add a field to
`EngineConfig` and use it in `core.py`; to add a KV cache, subclass `KVCache` and name it in
`caches.py`.
"""

from bssim.sim.engine.block_cache import BlockCache
from bssim.sim.engine.caches import cache_maker
from bssim.sim.engine.config import EngineConfig, load_preset, preset_names
from bssim.sim.engine.core import EngineCore, SchedulingError
from bssim.sim.engine.kv_cache import KVCache
from bssim.sim.engine.policy import OFFERED, UNLIMITED, AdmissionPolicy, EngineView
from bssim.sim.engine.radix_cache import RadixCache
from bssim.sim.engine.requests import RequestColumns
from bssim.sim.engine.step_columns import StepColumns, StepRow

__all__ = [
    "OFFERED",
    "UNLIMITED",
    "AdmissionPolicy",
    "BlockCache",
    "EngineConfig",
    "EngineCore",
    "EngineView",
    "KVCache",
    "RadixCache",
    "RequestColumns",
    "SchedulingError",
    "StepColumns",
    "StepRow",
    "cache_maker",
    "load_preset",
    "preset_names",
]
