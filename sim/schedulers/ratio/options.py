"""What `ratio` is made of, each part removable: `RatioOptions` and the named variants of it."""

from dataclasses import dataclass

KNOWN_PACED_SHARE = 0.06
"""Share of the KV cache that packed requests leave to paced ones if lengths are known."""
PACED_SHARE = 0.2
"""The same if they are not; it takes up what exceeds the expectation, too. A full cache admits no
paced request, so that nothing overlaps with its reads: worse than a few weight loads more."""


def paced_share(known: bool) -> float:
    """Return the share of the KV cache that is left to paced requests."""
    return KNOWN_PACED_SHARE if known else PACED_SHARE


@dataclass(frozen=True, slots=True)
class RatioOptions:
    """The ingredients of `ratio`; the defaults are `ratio` itself. For ablations."""

    pacing: bool = True
    """False: a step takes as many paced tokens as the engine's budget and KV cache admit."""
    drain_reserve: bool = True
    """False: a step takes the fewest tokens that lose nothing, whatever is left for later."""
    future_kv: bool = True
    """False: a packed request is admitted if its prompt fits beside the KV that is held now."""
    margin: float = 1.0
    """Standard deviations of expected KV use that are kept free below the limit."""
    prefix_groups: bool = True
    """False: requests wait in random order, also those that share a prefix."""
    kaplan_meier: bool = True
    """False: curves are lognormal, from the first two moments that the estimator has."""
    learning: bool = True
    """False: lengths are learnt from the sample alone."""


RATIO_VARIANTS: dict[str, RatioOptions] = {
    "no-pacing": RatioOptions(pacing=False),
    "no-drain-reserve": RatioOptions(drain_reserve=False),
    "no-future-kv": RatioOptions(future_kv=False),
    "no-margin": RatioOptions(margin=0.0),
    "no-prefix-groups": RatioOptions(prefix_groups=False),
    "lognormal": RatioOptions(kaplan_meier=False),
    "no-learning": RatioOptions(learning=False),
}
"""`ratio` with one ingredient removed, by what follows the colon of ``ratio:NAME``."""
