"""The runs of the paper's four traces that several figures look at, and what they are called."""

from collections.abc import Iterable

import pandas as pd

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.overlap import parse_overlap
from bssim.experiments.store import Results
from bssim.experiments.studies.paper.blending import Blending, blending
from bssim.experiments.studies.study import Claim

RETAINED = "paper/fig7a.yaml"
"""Random, depth-first and BlendServe's order on the NanoFlow preset, timelines kept."""
RATIO_RUNS = "paper/fig7a-ratio.yaml"
"""Our own scheduler on the same traces."""
COST_MODEL = "paper"
"""Steps at peak constants, as the paper's own model has them."""
BALANCE, DFS, BLENDSERVE, RATIO = "random", "dfs", "blendserve", "ratio"
LABELS = {
    BALANCE: "NanoFlow-Balance (random)",
    DFS: "NanoFlow-DFS",
    BLENDSERVE: "BlendServe",
    RATIO: "ratio (ours)",
}
"""Schedulers as the paper names them."""

Timelines = dict[tuple[str, str], pd.DataFrame]
"""Downsampled timelines by (trace, scheduler)."""


def timelines_of(results: Results) -> Timelines:
    """Return the kept timelines of a sweep under the paper's cost model."""
    rows = results.read_runs()
    rows = rows[(rows["cost_model"] == COST_MODEL) & (rows["status"] == "ok")]
    kept = results.timelines(rows)
    return {
        (str(row["workload"]), str(row["scheduler"])): kept[row["config_hash"]]
        for row in rows.to_dict("records")
        if row["config_hash"] in kept
    }


def measured(timelines: Timelines) -> dict[tuple[str, str], Blending]:
    """Return how well each run blends, under the overlap of the NanoFlow preset."""
    overlap = parse_overlap("frontier", load_hardware("a100-80gb").corun)
    return {key: blending(timeline, overlap) for key, timeline in timelines.items()}


def lost_claims(
    figure: str,
    found: dict[tuple[str, str], Blending],
    traces: Iterable[str],
    schedulers: Iterable[str],
) -> list[Claim]:
    """Return a claim a run: time lost to uneven steps, of which the paper has no number."""
    schedulers = list(schedulers)
    return [
        Claim(
            f"{figure}.{trace}.{scheduler}.lost",
            f"{trace}, {LABELS.get(scheduler, scheduler)}: share of the time lost to uneven steps",
            None,
            found[trace, scheduler].lost,
            found[trace, scheduler].in_words(),
        )
        for trace in traces
        for scheduler in schedulers
    ]
