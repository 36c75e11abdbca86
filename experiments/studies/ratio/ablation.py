"""Each ingredient of ratio removed, one at a time."""

from collections.abc import Mapping, Sequence

from bssim.experiments.store import Results
from bssim.experiments.studies.study import Chapter, Claim
from bssim.experiments.studies.tables import markdown_table

SWEEP = "ratio/ablation.yaml"


class Ablation:
    """What every part of the scheduler is worth."""

    name = "ratio_ablation"
    title = "Each ingredient removed"

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return the sweep of variants."""
        return (SWEEP,)

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """Return a row a variant, a column a trace."""
        runs = results[SWEEP].read_runs()
        runs = runs[runs["status"] == "ok"]
        shares = runs.pivot_table(
            index="scheduler", columns="workload", values="share_of_optimum", sort=False
        )
        shares.index.name = None
        lost = shares.sub(shares.loc["ratio"], axis="columns").mean(axis="columns")
        claims = [
            Claim(
                id=f"ratio_ablation.{name.removeprefix('ratio:')}",
                what=f"{name} less ratio: share of the optimum, mean of the traces",
                paper=None,
                ours=float(lost[name]),
            )
            for name in lost.index.tolist()
            if name != "ratio"
        ]
        table = shares.assign(**{"mean less ratio": lost})
        rows = markdown_table(table, lambda value: f"{value:.3f}", corner="")
        text = (
            "Share of the practical optimum with `survival`, frontier, `paper` cost model, "
            f"{int(runs['num_requests'].max()):,} requests, one seed. What each name leaves out is "
            "in [ratio](ratio.md#ingredients). Beside the ranges over seeds above, differences of "
            f"a point say little.\n\n{rows}"
        )
        return Chapter(claims, text)


ABLATION = Ablation()
