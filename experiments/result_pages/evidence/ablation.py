"""Each ingredient of ratio removed, one at a time."""

from collections.abc import Mapping, Sequence

from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import frame_table, mean_and_range
from bssim.experiments.sweeps import Results
from bssim.wording import counted

SWEEP = "ratio/ablation.yaml"


class Ablation:
    """The contribution of every part of the scheduler."""

    name = "ratio_ablation"
    title = "Each ingredient removed"

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return the sweep of variants."""
        return (SWEEP,)

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """Return one row per variant, one column per trace."""
        runs = results[SWEEP].read_runs()
        runs = runs[runs["status"] == "ok"]
        by_trace = runs.groupby(["scheduler", "workload"], sort=False)["share_of_bound"]
        shares = by_trace.mean().unstack(sort=False)
        lost = shares.sub(shares.loc["ratio"], axis="columns").mean(axis="columns")
        claims = [
            Claim(
                id=f"ratio_ablation.{name.removeprefix('ratio:')}",
                what=f"{name} less ratio: share of the tightest bound, mean of the traces",
                paper=None,
                ours=float(lost[name]),
            )
            for name in lost.index.tolist()
            if name != "ratio"
        ]
        shown = by_trace.agg(mean_and_range).unstack(sort=False)
        shown.index.name = None
        table = shown.assign(**{"mean less ratio": lost.map("{:+.3f}".format)})
        seeds = counted(runs["seed"].nunique(), "seed")
        text = (
            "Share of the tightest bound with `survival`, frontier, `paper` cost model, "
            f"{int(runs['num_requests'].max()):,} requests, {seeds} (mean and range). What each "
            "name leaves out is in [ratio](ratio.md#ingredients). Differences within the ranges "
            f"say little.\n\n{frame_table(table, str, corner='')}"
        )
        return Chapter(claims, text)


ABLATION = Ablation()
