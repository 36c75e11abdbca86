"""The parts of `ratio`, each of which can be removed: `RatioOptions` and its named variants."""

from dataclasses import dataclass

KNOWN_PACED_SHARE = 0.06
"""Share of the KV cache reserved for paced requests if lengths are known."""
PACED_SHARE = 0.2
"""The same share if lengths are not known. It also absorbs KV use above the expectation. A full
cache admits no paced request, so nothing overlaps with its reads, which costs more than a few
additional weight loads."""


def paced_share(known: bool) -> float:
    """Return the share of the KV cache that is reserved for paced requests."""
    return KNOWN_PACED_SHARE if known else PACED_SHARE


@dataclass(frozen=True, slots=True)
class RatioOptions:
    """The parts of `ratio`, for ablations. The defaults are `ratio` itself."""

    pacing: bool = True
    """False: a step takes as many paced tokens as the engine's budget and KV cache admit."""
    drain_reserve: bool = True
    """False: a step takes the fewest tokens that lose nothing, without a reserve for later."""
    future_kv: bool = True
    """False: a packed request is admitted if its prompt fits next to the current KV use."""
    margin: float = 1.0
    """Room kept free below the limit, in standard deviations of the expected KV use."""
    prefix_groups: bool = True
    """False: requests wait in random order, even if they share a prefix."""
    kaplan_meier: bool = True
    """False: curves are lognormal with the first two moments of the estimator."""
    learning: bool = True
    """False: lengths are learned from the sample only."""
    small_pools: bool = True
    """False: a small pool is also served by `ratio` itself; see `small_pools.best_plan`."""


RATIO_VARIANTS: dict[str, RatioOptions] = {
    "no-pacing": RatioOptions(pacing=False),
    "no-drain-reserve": RatioOptions(drain_reserve=False),
    "no-future-kv": RatioOptions(future_kv=False),
    "no-margin": RatioOptions(margin=0.0),
    "no-prefix-groups": RatioOptions(prefix_groups=False),
    "lognormal": RatioOptions(kaplan_meier=False),
    "no-learning": RatioOptions(learning=False),
}
"""`ratio` with one part removed, by the NAME in ``ratio:NAME``."""
