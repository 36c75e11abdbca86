"""The main table: seven orders, four estimators, three overlaps, three seeds, four traces."""

from collections.abc import Mapping, Sequence

import pandas as pd

from bssim.experiments.plots import shares_figure
from bssim.experiments.result_pages.evidence.comparison import TOLERATED
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import frame_table, mean_and_range
from bssim.experiments.sweeps import Results

SWEEPS = (
    "ratio/learners.yaml",
    "ratio/orders.yaml",
    "ratio/learners-overlaps.yaml",
    "ratio/adaptive.yaml",
)
WORTH = 1.02
"""Throughput of `ratio` over `blendserve_adaptive` on some trace that is worth its longer code."""
AIMS = {
    ("frontier", "oracle"): 0.97,
    ("frontier", "survival"): 0.955,
    ("gamma:0.2", "oracle"): 0.98,
    ("gamma:0.2", "survival"): 0.965,
}
"""Aim: the share of the tightest bound on every trace, by overlap and lengths."""


class Shares:
    """Share of the tightest bound of every scheduler and estimator."""

    name = "ratio_shares"
    title = "Share of the tightest lower bound: seven schedulers, four estimators, three overlaps"

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return the sweeps of the grid."""
        return SWEEPS

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """Return one table per overlap, and the aims."""
        runs = pd.concat([results[name].read_runs() for name in SWEEPS], ignore_index=True)
        runs = runs[runs["status"] == "ok"]
        ratio = runs[runs["scheduler"] == "ratio"]
        claims = [_aim(ratio, *key, aim) for key, aim in AIMS.items()]
        claims += [_loss(runs, overlap) for overlap in runs["overlap"].unique()]
        claims += _lead_claims(runs)
        seeds, size = runs["seed"].nunique(), int(runs["num_requests"].max())
        text = [
            f"{size:,} requests per trace, Llama-3-8B on one A100-80GB, `nanoflow` preset, "
            f"`--cost-model paper`. A value with a range is the mean of {seeds} seeds; a value "
            "without a range has one seed. A seed draws lengths, order and sample anew. `fcfs`,"
            " `random`, `dfs` and `lpm` use no output lengths.",
        ]
        for overlap, group in runs.groupby("overlap", sort=False):
            text += ["", f"### Overlap `{overlap}`", "", _table(group)]
        bounded = ratio["share_of_bound"] - ratio["share_of_optimum"]
        if (bounded > 1e-3).any():  # else the two shares are the same
            text += ["", _against_bound(ratio)]
        text += ["", _recommended(runs)]
        return Chapter(
            claims=claims,
            text="\n".join(text),
            figures={"shares": shares_figure(runs)},
            captions={
                "shares": "Share of the tightest bound: mean of the seeds; bars: their range; "
                "dotted lines: the practical optimum where it differs. "
                "`blendserve`, `blendserve_adaptive` and `ratio` with lengths learned during the "
                "run (`survival`) and with known lengths (`oracle`, hollow)."
            },
        )


def _aim(ratio: pd.DataFrame, overlap: str, lengths: str, aim: float) -> Claim:
    """Return the worst trace's mean over seeds beside the aim."""
    found = ratio[(ratio["overlap"] == overlap) & (ratio["output_lengths"] == lengths)]
    means = found.groupby("workload", sort=False)["share_of_bound"].mean()
    optimum = found.groupby("workload", sort=False)["share_of_optimum"].mean()
    note = "no result"
    if len(means):
        note = "; ".join(
            f"{trace} {means[trace]:.3f} (of the practical optimum {optimum[trace]:.3f})"
            for trace in means.index
        )
    return Claim(
        id=f"ratio_shares.{overlap}.{lengths}",
        what=f"ratio, {overlap}, {lengths}: share of the tightest bound on its worst trace (aim)",
        paper=aim,
        ours=float(means.min()) if len(means) else None,
        note=note,
        holds=bool(means.min() >= aim) if len(means) else None,
    )


def _loss(runs: pd.DataFrame, overlap: str) -> Claim:
    """Return the least throughput of ratio over blendserve with the same lengths, per trace."""
    keys = ["workload", "seed", "output_lengths"]
    table = runs[runs["overlap"] == overlap].pivot_table(
        index=keys, columns="scheduler", values="throughput_tok_s", sort=False
    )
    gain = (table["ratio"] / table["blendserve"]).dropna()
    worst = ", ".join(map(str, gain.index[int(gain.argmin())])) if len(gain) else ""
    return Claim(
        id=f"ratio_shares.{overlap}.over_blendserve",
        what=f"ratio over blendserve, {overlap}: least of all traces, seeds and estimators (aim)",
        paper=TOLERATED,
        ours=float(gain.min()) if len(gain) else None,
        note=f"mean {gain.mean():.3f}; least at {worst} (trace, seed, lengths)"
        if len(gain)
        else "no result",
        holds=bool(gain.min() >= TOLERATED) if len(gain) else None,
    )


def _lead(runs: pd.DataFrame) -> pd.Series:
    """Return ratio over blendserve_adaptive in throughput, by overlap, lengths, trace and seed."""
    table = runs.pivot_table(
        index=["overlap", "output_lengths", "workload", "seed"],
        columns="scheduler",
        values="throughput_tok_s",
        sort=False,
    ).reindex(columns=["ratio", "blendserve_adaptive"])
    return (table["ratio"] / table["blendserve_adaptive"]).dropna()


def _lead_claims(runs: pd.DataFrame) -> list[Claim]:
    """Return the mean of ratio over blendserve_adaptive for each overlap and estimator."""
    leads = _lead(runs).rename("lead").reset_index()
    return [
        Claim(
            id=f"ratio_shares.{overlap}.{lengths}.over_adaptive",
            what=f"ratio over blendserve_adaptive, {overlap}, {lengths}: mean throughput",
            paper=None,
            ours=float(group["lead"].mean()),
            note=f"{group['lead'].min():.3f} to {group['lead'].max():.3f} over traces and seeds",
        )
        for (overlap, lengths), group in leads.groupby(["overlap", "output_lengths"], sort=False)
    ]


def _recommended(runs: pd.DataFrame) -> str:
    """Return which of ratio and blendserve_adaptive to use when lengths are learned."""
    lead = _lead(runs)
    lead = lead[lead.index.get_level_values("output_lengths") == "survival"]
    if lead.empty:
        return "There are no runs that compare `ratio` with `blendserve_adaptive`."
    by_overlap = ", ".join(
        f"{mean:.3f} ({overlap})"
        for overlap, mean in lead.groupby(level="overlap", sort=False).mean().items()
    )
    means = lead.groupby(level=["overlap", "workload"]).mean()
    least, most = float(means.min()), float(means.max())
    if least < TOLERATED:
        use = "neither wins everywhere, so measure both on the pool with `bssim sweep`"
    elif most <= WORTH:
        use = (
            "`blendserve_adaptive` does nearly what `ratio` does and is less code, so use "
            "`blendserve_adaptive`"
        )
    else:
        use = "use `ratio`; `blendserve_adaptive` is less code and changes less of BlendServe"
    return (
        "`blendserve_adaptive` ([what it changes](schedulers.md)) also learns lengths and follows "
        "the work that remains. With `survival`, the throughput of `ratio` over "
        f"`blendserve_adaptive` is {by_overlap} on average and {least:.3f} to {most:.3f} on the "
        f"means of a trace. Therefore {use}."
    )


def _table(runs: pd.DataFrame) -> str:
    """Return a table with schedulers and estimators as rows and traces as columns."""
    learns = runs["scheduler"].isin(["blendserve", "blendserve_adaptive", "ratio"])
    labels = runs["scheduler"].where(~learns, runs["scheduler"] + ", " + runs["output_lengths"])
    cells = (
        runs.assign(order=labels)
        .groupby(["order", "workload"], sort=False)["share_of_bound"]
        .agg(mean_and_range)
        .unstack("workload", sort=False)
    )
    return frame_table(cells, str, corner="")


def _against_bound(ratio: pd.DataFrame) -> str:
    """Return how to get the share of the practical optimum from that of the bound."""
    known = ratio[ratio["output_lengths"] == "oracle"]
    share = known["share_of_optimum"] / known["share_of_bound"]
    limits = share.groupby([known["overlap"], known["workload"]], sort=False).mean().unstack()
    return (
        "The practical optimum takes less time than the tightest bound, which counts weight loads"
        " and the least number of steps. No order can reach more than this share of the practical"
        " optimum; the share of the practical optimum is the share of the bound times it:\n\n"
        + frame_table(limits, lambda value: f"{value:.3f}", corner="overlap")
    )


SHARES = Shares()
