"""Table 3: BlendServe on one, two and four replicas."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bssim.experiments.plots import (
    SINGLE_IN,
    SOURCE_COLOURS,
    conditions_of,
    head,
    new_figure,
    ratio_range,
    styled,
)
from bssim.experiments.result_pages.reproduction import published
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import (
    by_workload,
    frame_table,
    percent,
    times,
    tokens,
    within,
)
from bssim.experiments.sweeps import Results
from bssim.sim.schedulers import RUNS_PER_REPLICA
from bssim.wording import counted

ONE, MANY = "paper/fig7a.yaml", "paper/table3.yaml"
ONE_KNOWN, MANY_KNOWN = "paper/fig7a-lengths.yaml", "paper/table3-oracle.yaml"
ONE_RATIO, MANY_RATIO = "paper/fig7a-ratio.yaml", "paper/table3-ratio.yaml"
GROWN = {2: "paper/table3-dp2.yaml", 4: "paper/table3-dp4.yaml"}
"""By number of replicas: the sweep whose pool grows with it."""
AIMS = {2: 1.85, 4: 3.7}
"""Least expected speed-up by number of replicas."""


class Table3:
    """Throughput, speed-up, imbalance and lost sharing by trace and replicas."""

    name = "table3"
    title = "Table 3: data parallelism"

    def sweeps(self, full: bool) -> Sequence[str]:
        """See `Study.sweeps`."""
        return (ONE, MANY, ONE_KNOWN, MANY_KNOWN, ONE_RATIO, MANY_RATIO, *GROWN.values())

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        rate = _by_replicas(results, "throughput_tok_s")
        speedup = rate.div(rate[1], axis=0)
        known, grown = _known(results), _grown(results).div(rate[1], axis=0)
        ratio = _ratio(results)
        sharing = _by_replicas(results, "sharing") / _by_replicas(results, "sharing_max")
        idle = _idle(results[MANY]).reindex(rate.index)
        paper = pd.DataFrame(published.TABLE_3).T.reindex(rate.index)
        paper_speedup = paper.div(paper[1], axis=0)
        claims = [
            *_claims(rate, speedup, paper, paper_speedup, known, grown),
            *_ratio_claims(ratio),
            Claim(
                "table3.sharing.lost",
                "largest loss of prefix hits on four replicas, of the hits on one",
                None,
                float((1 - sharing[4] / sharing[1]).max(skipna=False)),
                "a prefix that runs of several replicas share is computed once on each",
            ),
            Claim(
                "table3.imbalance",
                "largest part of the replicas' time that is idle at the end, any trace",
                None,
                float(np.max(idle.to_numpy())),
            ),
        ]
        text = "\n\n".join(
            [
                "Tokens/s of BlendServe by trace and replicas (`paper` cost model):",
                frame_table(rate.rename(columns=_dp), tokens, "trace"),
                "Speed-up over one replica, ours and the paper's:",
                frame_table(
                    speedup.drop(columns=1)
                    .rename(columns="DP {}".format)
                    .join(paper_speedup.drop(columns=1).rename(columns="paper, DP {}".format)),
                    times,
                    "trace",
                ),
                "Two effects cost time. First, output lengths are not known: replicas with equal "
                "estimates get unequal work, and each replica learns from its own part of the "
                "sample. Second, the pool does not grow: each replica gets a part of the few "
                "hundred long outputs. Once all of them run, no order is left to choose, and the "
                "drain takes a larger part of the makespan. The next table shows the speed-up "
                "without the first effect (known lengths), and without the second (every replica "
                "has as many requests as the one replica had):",
                frame_table(
                    known.rename(columns="known lengths, DP {}".format).join(
                        grown[list(GROWN)].rename(columns="N times the requests, DP {}".format)
                    ),
                    times,
                    "trace",
                ),
                "The same for `ratio`, which paces every replica so that its compute lasts "
                "through its drain (relative to one replica of `ratio`, `survival`). Long outputs"
                " that start late limit it, because nobody knows which they are:",
                frame_table(ratio.rename(columns="ratio, DP {}".format), times, "trace"),
                "The share of time that replicas idle at the end while they wait for the last "
                "one, and prefix hits as a share of the largest possible:",
                frame_table(
                    idle.rename(columns="idle, DP {}".format).join(
                        sharing.rename(columns="hits, DP {}".format)
                    ),
                    percent,
                    "trace",
                ),
                "Replicas do not get contiguous pieces of one scan, because the replica with the "
                f"longest outputs would then end last. The order is cut into {RUNS_PER_REPLICA} "
                "runs of equal load per replica, which are dealt back and forth "
                "(`sim/schedulers/partition.py`).",
            ]
        )
        caption = "Speed-up of BlendServe by replicas; dashed: the paper's, dotted: linear."
        conditions = conditions_of(results[MANY].read_runs().drop(columns="dp"))
        figure = _figure(speedup, paper_speedup, conditions)
        return Chapter(claims, text, {self.name: figure}, {self.name: caption})


def _ratio_claims(ratio: pd.DataFrame) -> Iterator[Claim]:
    """Yield the gains of `ratio` on several replicas: one row per trace, one column per number."""
    for replicas, aim in AIMS.items():
        for trace in ratio.index:
            speedup = float(ratio.loc[trace, replicas])
            yield Claim(
                f"table3.{trace}.dp{replicas}.ratio_speedup",
                f"`ratio` on {replicas} replicas over one, {trace}",
                None,
                speedup,
                f"aim: at least {aim}",
                within(speedup, aim),
            )


def _by_replicas(results: Mapping[str, Results], column: str) -> pd.DataFrame:
    """Return a column of runs.csv: one row per trace, columns for 1, 2 and 4 replicas."""
    one = by_workload(results[ONE], column, cost_model="paper", scheduler="blendserve")
    many = by_workload(results[MANY], column, across="dp")
    return one.rename(columns={"blendserve": 1}).join(many.rename(columns=int))


def _known(results: Mapping[str, Results]) -> pd.DataFrame:
    """Return the speed-up over one replica with known output lengths."""
    one = by_workload(results[ONE_KNOWN], across="output_lengths")["oracle"]
    many = by_workload(results[MANY_KNOWN], across="dp").rename(columns=int)
    return many.div(one, axis=0)


def _ratio(results: Mapping[str, Results]) -> pd.DataFrame:
    """Return the speed-up of `ratio` over `ratio` on one replica."""
    one = by_workload(results[ONE_RATIO], cost_model="paper")["ratio"]
    many = by_workload(results[MANY_RATIO], across="dp").rename(columns=int)
    return many.div(one, axis=0)


def _grown(results: Mapping[str, Results]) -> pd.DataFrame:
    """Return tokens/s of pools that grow with the replicas; NaN for what was not run."""
    columns = {k: by_workload(results[sweep])["blendserve"] for k, sweep in GROWN.items()}
    return pd.DataFrame(columns).reindex(index=list(published.TRACES), columns=list(AIMS))


def _idle(results: Results) -> pd.DataFrame:
    """Return 1 - mean(end) / makespan of the replicas: one row per trace, one column per number.

    It comes from the kept timelines, whose last slice holds a replica's last steps.
    """
    runs = results.read_runs()
    idle: dict[tuple[str, int], float] = {}
    timelines = results.timelines(runs)
    for row in runs[runs["config_hash"].isin(list(timelines))].to_dict("records"):
        last = timelines[row["config_hash"]].groupby("replica").last()
        end = last["start_s"] + last["steps"] * last["step_s"]
        idle[row["workload"], row["dp"]] = float(1 - end.mean() / end.max())
    table = pd.Series(idle, index=pd.MultiIndex.from_tuples(idle), dtype=float).unstack()
    return table.reindex(columns=list(AIMS))


def _claims(
    rate: pd.DataFrame,
    speedup: pd.DataFrame,
    paper: pd.DataFrame,
    paper_speedup: pd.DataFrame,
    known: pd.DataFrame,
    grown: pd.DataFrame,
) -> Iterator[Claim]:
    for replicas, aim in AIMS.items():
        for trace in rate.index:
            value = float(speedup.loc[trace, replicas])
            with_known = float(known.loc[trace, replicas])
            with_more = float(grown.loc[trace, replicas])
            note = f"aim: at least {aim}; known lengths give {with_known:.2f}"
            if with_more == with_more:
                note += f", {replicas} times the requests {with_more:.2f}"
            yield Claim(
                f"table3.{trace}.dp{replicas}.speedup",
                f"BlendServe on {replicas} replicas over one, {trace}",
                float(paper_speedup.loc[trace, replicas]),
                value,
                note,
                within(value, aim),
            )
    for replicas in (1, *AIMS):
        for trace in rate.index:
            yield Claim(
                f"table3.{trace}.dp{replicas}.tok_s",
                f"BlendServe, tokens/s, {trace}, {counted(replicas, 'replica')}, paper cost model",
                float(paper.loc[trace, replicas]),
                float(rate.loc[trace, replicas]),
            )


def _figure(speedup: pd.DataFrame, paper: pd.DataFrame, conditions: str) -> Figure:
    with styled():
        figure = new_figure(SINGLE_IN, 2.3)
        axes = figure.add_subplot()
        axes.set_prop_cycle(color=SOURCE_COLOURS)
        replicas = [1, *AIMS]
        axes.plot(replicas, replicas, color="black", lw=0.6, ls=":", label="linear")
        for trace, marker in zip(speedup.index, "os^D", strict=True):
            ours = speedup.loc[trace, replicas].astype(float)
            axes.plot(replicas, ours, marker=marker, markersize=3, label=f"{trace}")
        axes.set_prop_cycle(color=SOURCE_COLOURS)
        for trace in speedup.index:
            axes.plot(replicas, paper.loc[trace, replicas].astype(float), ls="--", lw=0.7)
        axes.set_xticks(replicas)
        axes.set(xlabel="replicas", ylabel="speed-up over one replica")
        axes.legend()
        most = replicas[-1]
        reached = ratio_range(speedup[most].astype(float))
        head(figure, f"{most} replicas are {reached} as fast as one", conditions)
    return figure


def _dp(replicas: int) -> str:
    return f"DP {replicas}"


TABLE_3 = Table3()
