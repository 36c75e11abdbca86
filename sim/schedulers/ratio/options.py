"""The parts of `ratio`, each of which can be removed: `RatioOptions` and its named variants."""

from dataclasses import dataclass
from statistics import NormalDist

KNOWN_PACED_SHARE = 0.06
"""Share of the KV cache reserved for paced requests if lengths are known."""
PACED_SHARE = 0.2
"""The same share if lengths are not known. It also absorbs KV use above the expectation. A full
cache admits no paced request, so nothing overlaps with its reads, which costs more than a few
additional weight loads."""


def paced_share(known: bool) -> float:
    """Return the share of the KV cache that is reserved for paced requests."""
    return KNOWN_PACED_SHARE if known else PACED_SHARE


def margin(most: float, fixed_share: float) -> float:
    """Return the room to keep free below the limit, in standard deviations of KV use.

    An idle token makes the run longer, because each step costs its fixed part again: a share
    ``fixed_share`` of a full step. A token above the limit costs its part of a full step twice: it
    was read in vain, and is read again later. As for a newsvendor, the sum is least if KV use
    exceeds the limit with probability ``fixed_share / 2``. The result is between 0 and ``most``.
    """
    over = min(max(fixed_share / 2, 1e-6), 0.5)  # a millionth gives more than any `most`
    return min(-NormalDist().inv_cdf(over), most)


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
    """Most room kept free below the limit, in standard deviations of KV use; see `margin`."""
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
