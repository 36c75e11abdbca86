"""How accurate the estimates of output lengths are, and what they cost."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import frame_table
from bssim.experiments.sweeps import Results, WorkloadRef, build_workload
from bssim.sim.lengths import QUANTILES, EstimatorReport, calibrate_estimator
from bssim.sim.workload import DEFAULT_NUM_REQUESTS

ESTIMATORS = ("mean", "sampled", "survival")
GENERATED = (0, 4096)
"""Tokens that a request has generated when its remaining length is estimated."""
SOURCE = "openvid"
"""The source that carries nearly all memory seconds."""
TRACE = "trace2"


class Lengths:
    """Coverage of predicted quantiles, and the ratio of predicted to true work."""

    name = "ratio_lengths"
    title = "How good the estimates are"

    def __init__(self, num_requests: int = DEFAULT_NUM_REQUESTS) -> None:
        """``num_requests``: requests of the trace."""
        self.num_requests = num_requests

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return nothing: this study reads no sweep."""
        return ()

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """Return coverage by estimator and progress of the requests."""
        pool = build_workload(WorkloadRef(TRACE, self.num_requests, seed=0))
        reports = [
            calibrate_estimator(pool, name, np.random.default_rng(0), generated=generated)
            for generated in GENERATED
            for name in ESTIMATORS
        ]
        rows = [_row(report) for report in reports]
        table = pd.DataFrame(rows).set_index(["estimator", "generated", "requests"])
        claims = [
            Claim(
                id=f"ratio_lengths.{report.estimator}.after_{report.generated}",
                what=f"{report.estimator}, after {report.generated} tokens: largest distance of "
                "the coverage of a predicted quantile from that quantile",
                paper=None,
                ours=float(np.abs(report.by_source[SOURCE].coverage - QUANTILES).max()),
            )
            for report in reports
            if SOURCE in report.by_source
        ]
        tokens = int(pool.prompt_tokens.sum() + pool.output_tokens.sum())
        sampled = next(report for report in reports if report.sampled_requests)
        text = (
            f"{SOURCE} in {TRACE} ({self.num_requests:,} requests). An estimator is calibrated "
            "if a share q of the requests are no longer than the q-quantile that it predicts. "
            "*After* n tokens: requests that have generated n tokens are asked how many will "
            "follow. The sample has then also run for n tokens only, so longer requests are "
            "censored observations. This is the worst moment to ask, because nobody has seen "
            "anything beyond n. The last two columns are ratios of predicted to true sums: of "
            "tokens, and of the KV tokens read, which packing uses. `mean` and `sampled` "
            "predict with the lognormal that has their two moments.\n\n"
            + frame_table(table, lambda value: f"{value:.2f}")
            + f"\n\nThe sample is {sampled.sampled_requests:,} requests and "
            f"{sampled.sampled_tokens / tokens:.1%} of the pool's tokens: work that is moved "
            "forward, not added."
        )
        return Chapter(claims, text)


def _row(report: EstimatorReport) -> dict[str, object]:
    found = report.by_source.get(SOURCE)
    shares = found.coverage if found else np.full(len(QUANTILES), np.nan)
    return {
        "estimator": report.estimator,
        "generated": report.generated,
        "requests": found.requests if found else 0,
        **{f"{q:.0%}": value for q, value in zip(QUANTILES, shares, strict=True)},
        "tokens": found.tokens_ratio if found else np.nan,
        "KV reads": found.reads_ratio if found else np.nan,
    }


LENGTHS = Lengths()
