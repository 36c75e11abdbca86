"""The sampling claim: lengths learned from 1 % of the requests against known lengths."""

from collections.abc import Mapping, Sequence

import pandas as pd

from bssim.experiments.plots import conditions_of, grouped_bars, share_range
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import by_workload, frame_table, percent, tokens
from bssim.experiments.sweeps import Results

FIRST, LENGTHS = "paper/fig7a.yaml", "paper/fig7a-lengths.yaml"
SEEDS = "paper/sampling.yaml"
COMPARABLE = 0.95
"""Share of the throughput with known lengths that counts as comparable."""
COLOURS = {"oracle": "#000000", "seed 0": "#0072B2", "seed 1": "#56B4E9", "seed 2": "#009E73"}


class Sampling:
    """BlendServe's throughput with lengths from a 1 % sample, three samples, and known ones."""

    name = "sampling"
    title = "Sampling 1 % of the output lengths"

    def sweeps(self, full: bool) -> Sequence[str]:
        """See `Study.sweeps`."""
        return (FIRST, LENGTHS, SEEDS)

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        lengths = by_workload(results[LENGTHS], across="output_lengths")
        known, moments = lengths["oracle"], lengths["mean"] / lengths["oracle"]
        first = by_workload(results[FIRST], cost_model="paper")["blendserve"]
        others = by_workload(results[SEEDS], across="seed")
        rate = pd.DataFrame({"oracle": known, "seed 0": first})
        rate = rate.join(others.rename(columns="seed {}".format))
        share = rate.drop(columns="oracle").div(rate["oracle"], axis=0)
        spread = (share.max(axis=1, skipna=False) - share.min(axis=1, skipna=False)).max(
            skipna=False
        )
        claims = [
            Claim(
                f"sampling.{trace}.of_oracle",
                f"BlendServe with a 1 % sample over known lengths, {trace}, mean of three samples",
                "comparable",
                float(value),
                f"comparable: at least {COMPARABLE:.2f}; true first and second moments of each "
                f"source, which no sample improves on, give {moments[str(trace)]:.3f}",
                None if value != value else bool(value >= COMPARABLE),
            )
            for trace, value in share.mean(axis=1, skipna=False).items()
        ]
        claims.append(
            Claim(
                "sampling.spread",
                "largest difference that the choice of the sample makes on one trace, as a share "
                "of the throughput with known lengths",
                None,
                spread,
            )
        )
        text = "\n\n".join(
            [
                "The same pools, sampled with three seeds. The sample runs first and its time "
                "counts. It has at least 30 requests of every source or large subtree, because a "
                "uniform 1 % would hold only a handful of the long outputs that carry nearly all "
                "memory time (Table 2).",
                frame_table(rate, tokens, "trace"),
                "As a share of the throughput with known lengths:",
                frame_table(share, percent, "trace", means=True),
            ]
        )
        mean = share.mean(axis=1)
        figure = grouped_bars(
            {"": rate / 1e3},
            COLOURS,
            "throughput (1000 tokens/s)",
            message=f"BlendServe with a 1 % sample reaches {share_range(mean)} of its rate with "
            "known lengths, mean of three samples",
            conditions=conditions_of(results[SEEDS].read_runs().drop(columns="seed")),
        )
        caption = "BlendServe with known lengths and with three 1 % samples."
        return Chapter(claims, text, {self.name: figure}, {self.name: caption})


SAMPLING = Sampling()
