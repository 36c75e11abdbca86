"""Figure 8: prefill and decode on separate GPUs (DistServe's xPyD), per GPU."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from bssim.experiments.plots import conditions_of, fastest_message, grouped_bars
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import frame_table, percent, tokens, within
from bssim.experiments.sweeps import Results
from bssim.sim.cluster import Disaggregation

DFS, MEMORY_FIRST = "paper/fig8.yaml", "paper/fig8-memory-first.yaml"
COLOCATED = "vLLM"
COLOURS = {
    COLOCATED: "#882255",
    "1P1D": "#88CCEE",
    "1P2D": "#44AA99",
    "2P1D": "#DDCC77",
    "1P3D": "#117733",
}
"""The systems of the figure, in the order of its bars."""


class Fig8:
    """Throughput per GPU of every split, and how busy each pool is."""

    name = "fig8"
    title = "Figure 8: prefill and decode on separate GPUs"

    def sweeps(self, full: bool) -> Sequence[str]:
        """See `Study.sweeps`."""
        return (DFS, MEMORY_FIRST)

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        runs = {name: _runs(results[name]) for name in (DFS, MEMORY_FIRST)}
        rate = {name: _table(found, "per_gpu") for name, found in runs.items()}
        claims = [
            *_below_colocated(rate[DFS]),
            *_memory_first(rate[MEMORY_FIRST]),
        ]
        splits = [name for name in rate[DFS] if name != COLOCATED]
        busy = pd.DataFrame(
            {
                f"{split}, {pool}": _table(runs[DFS], pool)[split]
                for split in splits
                for pool in ("prefill", "decode")
            }
        )
        first = runs[MEMORY_FIRST]
        both = rate[MEMORY_FIRST].assign(
            **{pool: _table(first, pool)["1P1D"] for pool in ("prefill", "decode")}
        )
        gain = both["1P1D"] / both[COLOCATED]
        text = "\n\n".join(
            [
                "Tokens/s per GPU (`paper` cost model, `vllm` preset, KV sent over NVLink at its "
                "peak; see [disaggregation](disaggregation.md)):",
                frame_table(rate[DFS].T, tokens, "system"),
                "The share of the makespan in which the replicas of each pool are busy:",
                frame_table(busy.T, percent, "pool"),
                "A split gives each group of replicas one resource: prefill GPUs hardly read KV, "
                "and decode GPUs hardly compute. It pays per GPU only as far as both groups are "
                "busy at once. A depth-first order, which serves one source after the other, "
                "needs first one group and then the other.",
                "The same with the memory-intensive source first and known lengths. As long as "
                "all long outputs fit one decode GPU together, they decode beside the prompts of "
                "all other requests. Where they do not fit, they hold all of its KV, the requests"
                " that were prefilled meanwhile wait behind them, and the prefill GPU stalls.",
                frame_table(
                    both[[COLOCATED, "1P1D"]].assign(**{"1P1D over vLLM": gain}).T,
                    lambda value: tokens(value) if value > 10 else f"{value:.3f}",
                    "system",
                ),
                "The share of the makespan in which its two GPUs are busy:",
                frame_table(both[["prefill", "decode"]].T, percent, "1P1D"),
            ]
        )
        figure = grouped_bars(
            {
                "order of vLLM-DFS": rate[DFS] / 1e3,
                "memory-intensive source first": rate[MEMORY_FIRST] / 1e3,
            },
            COLOURS,
            "1000 tokens/s per GPU",
            message=fastest_message(rate[DFS], "1P1D", "traces") + " in the order of vLLM-DFS",
            conditions=conditions_of(runs[DFS].drop(columns=["dp", "engine"])),
        )
        caption = "Throughput per GPU of colocated vLLM and of vLLM split into xPyD."
        return Chapter(claims, text, {self.name: figure}, {self.name: caption})


def _runs(results: Results) -> pd.DataFrame:
    """Return runs.csv with the split, tokens/s per GPU and how busy each pool was."""
    runs = results.read_runs()
    inputs = results.inputs(runs)
    split = [inputs.get(key, {}).get("disaggregation") for key in runs["config_hash"]]
    pools = [
        _pools((results.record(key) or {}).get("busy", ()), name)
        for key, name in zip(runs["config_hash"], split, strict=True)
    ]
    return runs.assign(
        system=[name or COLOCATED for name in split],
        per_gpu=runs["throughput_tok_s"] / (runs["dp"] * runs["tp"]),
        prefill=[prefill for prefill, _ in pools],
        decode=[decode for _, decode in pools],
    )


def _pools(busy: Sequence[float], split: str | None) -> tuple[float, float]:
    """Return the mean busy share of prefill and of decode replicas."""
    if split is None or not busy:
        return float("nan"), float("nan")
    count = Disaggregation.parse(split).prefill
    return sum(busy[:count]) / count, sum(busy[count:]) / (len(busy) - count)


def _table(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return a column of runs.csv: one row per trace, one column per system."""
    table = runs.set_index(["workload", "system"])[column].astype("float64").unstack("system")
    systems = [name for name in COLOURS if name in table]
    return table.reindex(index=list(dict.fromkeys(runs["workload"])), columns=systems)


def _below_colocated(rate: pd.DataFrame) -> Iterator[Claim]:
    for split in rate.columns.drop(COLOCATED):
        for trace, value in (rate[split] / rate[COLOCATED]).items():
            yield Claim(
                f"fig8.{trace}.{split.lower()}",
                f"{split} over colocated vLLM per GPU, {trace}",
                "below 1",
                value,
                holds=within(value, high=1.0),
            )


def _memory_first(rate: pd.DataFrame) -> Iterator[Claim]:
    for trace, value in (rate["1P1D"] / rate[COLOCATED]).items():
        yield Claim(
            f"fig8.{trace}.1p1d.memory_first",
            f"1P1D over colocated vLLM per GPU, {trace}, memory-intensive source first",
            None,
            value,
            "with known lengths; the paper shows the order of vLLM-DFS only",
        )


FIG8 = Fig8()
