"""Request pools: where they come from, and the prefix tree that holds their prompts.

`load_workload` makes a `Workload` from a built-in name or a file; `make_workload` makes one from
columns. `readers/` reads trace and batch files, and `sources.py` holds the built-in sources. To
add a source, write `specs/NAME.yaml` and add a line to `sources.py`; to add a mix of sources, add a
line to `synthesis.py`.
"""

from bssim.sim.workload.combine import cap_lengths, concatenate, select, shuffle, subsample, take
from bssim.sim.workload.convert import convert
from bssim.sim.workload.describe import describe
from bssim.sim.workload.load import (
    MOST_NUM_REQUESTS,
    WORKLOAD_NAMES,
    check_source,
    is_builtin,
    load_mix,
    load_workload,
)
from bssim.sim.workload.prefix_tree import PrefixTree, infinite_cache_hits
from bssim.sim.workload.request_density import pool_density, request_density
from bssim.sim.workload.sources import SOURCE_NAMES, GroupedSource, builtin_source, published
from bssim.sim.workload.synthesis import DEFAULT_NUM_REQUESTS, TRACES, MixSpec
from bssim.sim.workload.token_ids import exact_vocab_size, prompt_token_ids
from bssim.sim.workload.tree_builders import flatten, from_block_hashes, from_groups, from_token_ids
from bssim.sim.workload.workload import Workload, make_workload

__all__ = [
    "DEFAULT_NUM_REQUESTS",
    "MOST_NUM_REQUESTS",
    "SOURCE_NAMES",
    "TRACES",
    "WORKLOAD_NAMES",
    "GroupedSource",
    "MixSpec",
    "PrefixTree",
    "Workload",
    "builtin_source",
    "cap_lengths",
    "check_source",
    "concatenate",
    "convert",
    "describe",
    "exact_vocab_size",
    "flatten",
    "from_block_hashes",
    "from_groups",
    "from_token_ids",
    "infinite_cache_hits",
    "is_builtin",
    "load_mix",
    "load_workload",
    "make_workload",
    "pool_density",
    "prompt_token_ids",
    "published",
    "request_density",
    "select",
    "shuffle",
    "subsample",
    "take",
]
