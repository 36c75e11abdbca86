"""Draws of the built-in sources, and which of their numbers cannot confirm the paper's."""

from typing import Any

from bssim.experiments.plots import SOURCE_COLOURS
from bssim.experiments.sweeps import WorkloadRef, build_workload
from bssim.sim.workload import GroupedSource, Workload, builtin_source, describe

NUM_DRAWS = 400_000
"""Requests drawn of each source: WildChat's mean prompt, the widest spread, is known to 1 %."""

NAMES = {
    "wildchat": "WildChat",
    "burstgpt": "BurstGPT",
    "azure": "Azure",
    "openvid": "OpenVid",
    "mmlu": "MMLU",
    "limo": "LIMO",
    "sharegpt": "ShareGPT",
}
"""The sources as the paper writes them, in the order of its Figure 2; ShareGPT is in Table 4."""

_MARKERS = "o^sDv<P"


def look(name: str) -> tuple[str, str]:
    """Return a source's colour and marker, the same in every figure."""
    place = list(NAMES).index(name)
    return SOURCE_COLOURS[place], _MARKERS[place]


def draw(name: str, num_requests: int) -> Workload:
    """Return requests of a built-in source, seed 0."""
    return build_workload(WorkloadRef(name, num_requests, seed=0))


def numbers(name: str, num_requests: int) -> dict[str, Any]:
    """Return the means, sharing and density of a draw; see `describe`."""
    return describe(draw(name, num_requests))


def is_tuned(name: str) -> bool:
    """Return whether the fit was tuned to the paper's density, so it cannot confirm it."""
    return "tuned" in builtin_source(name).provenance


def density_note(name: str) -> str:
    """Return how far the density of a source confirms the paper's."""
    if is_tuned(name):
        _, _, what = builtin_source(name).provenance.partition("density: ")
        return f"validates nothing: {what} tuned to this density"
    return {
        "mmlu": "not tuned: lengths of the public questions, and the measured prefix of a subject",
        "azure": "not tuned: the paper's means, the spread of the public Azure 2023 code trace",
        "sharegpt": "not tuned: quantiles of NanoFlow's public ShareGPT trace, another sample of "
        "the same site than the paper's",
    }[name]


def sharing_note(name: str) -> str:
    """Return how far the sharing of a source confirms the paper's."""
    if isinstance(builtin_source(name), GroupedSource):
        return (
            "measured: one five-shot prompt per subject; an exact token trie of the same text "
            "gives 0.862, because questions of one subject also start alike"
        )
    return "by construction: a system prompt as long as this sharing needs"
