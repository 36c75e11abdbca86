"""The runs of the paper's four traces that several figures share, and their names."""

from collections.abc import Iterable

import pandas as pd

from bssim.cost_models.hardware import kv_capacity_tokens, load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.overlap import parse_overlap
from bssim.experiments.result_pages.reproduction.blending import Blending, blending
from bssim.experiments.result_pages.study import Claim
from bssim.experiments.sweeps import Results
from bssim.sim.engine import load_preset

RETAINED = "paper/fig7a.yaml"
"""Random, depth-first and BlendServe's order on the NanoFlow preset, timelines kept."""
RATIO_RUNS = "paper/fig7a-ratio.yaml"
"""bssim's own scheduler on the same traces."""
MODEL, HARDWARE = "llama-3-8b", "a100-80gb"
COST_MODEL = "paper"
"""Steps at peak rates, as in the paper's model."""
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
    """Return how well each run blends on the NanoFlow preset: its overlap, its KV cache."""
    llm, hardware, engine = load_llm(MODEL), load_hardware(HARDWARE), load_preset("nanoflow")
    overlap = parse_overlap(engine.overlap, hardware.corun)
    capacity = kv_capacity_tokens(llm, hardware, kv_reserve=engine.kv_reserve)
    return {key: blending(timeline, overlap, capacity) for key, timeline in timelines.items()}


def lost_claims(
    figure: str,
    found: dict[tuple[str, str], Blending],
    traces: Iterable[str],
    schedulers: Iterable[str],
) -> list[Claim]:
    """Return one claim per run: time lost to uneven steps. The paper gives no number for it."""
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
