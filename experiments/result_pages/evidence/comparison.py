"""Schedulers side by side over everything that a sweep varies: one grid for one question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from bssim.experiments.plots import GRID_AXES, conditions_of, heatmaps, scheduler_order
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import by_grid, frame_table
from bssim.experiments.sweeps import Results
from bssim.wording import counted

TOLERATED = 0.99
"""The least throughput of `ratio` over `blendserve` that does not count as a loss."""
SPELT_OUT = 60
"""Largest table that shows every setting, in rows."""


@dataclass(frozen=True)
class Comparison:
    """Share of the tightest bound of every scheduler in every setting of some sweeps."""

    name: str
    title: str
    files: tuple[str, ...]
    question: str
    """What the grid varies and why; the text above the table."""
    heat_map: bool = False
    """Draw ratio over blendserve: for one sweep over densities and sharings."""

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return the sweeps of the grid."""
        return self.files

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """Return one row per setting and workload, and how often ratio loses to blendserve."""
        parts = []
        for name in self.files:
            runs = results[name].read_runs()
            labels = results[name].setting_labels(runs)
            parts.append(runs.assign(setting=runs["config_hash"].map(labels)))
        runs = pd.concat(parts, ignore_index=True)
        ok = runs[runs["status"] == "ok"]
        table = compared(ok)
        claims = [_least(self.name, table)]
        text = [self.question, "", f"{_sizes(runs)} requests. {_summary(table)}"]
        if len(table) <= SPELT_OUT:
            shown = table.rename(columns={"gain": "ratio / blendserve"})
            text += [
                "",
                "Share of the tightest lower bound by scheduler. Times the column `optimum`, it is "
                "the share of the practical optimum.",
            ]
            text += ["", frame_table(shown, lambda value: f"{value:.3f}")]
        failed = runs[runs["status"] != "ok"]
        if len(failed):
            first = failed.iloc[0]
            text += ["", f"{len(failed)} of {len(runs)} runs have no result: {first['error']}"]
        figures, captions = {}, {}
        if self.heat_map:
            gain = by_grid(results[self.files[0]], "ratio", "blendserve")
            figures[self.name] = heatmaps(
                {"ratio over blendserve": gain}, *GRID_AXES, conditions=conditions_of(ok)
            )
            captions[self.name] = "`ratio` over `blendserve`, both with the same estimates."
        return Chapter(claims, "\n".join(text), figures, captions)


def compared(ok: pd.DataFrame) -> pd.DataFrame:
    """Return share_of_bound by scheduler, ``optimum`` and ``gain``.

    ``optimum`` is the time of the practical optimum over that of the tightest bound, ``gain`` the
    throughput of ratio over blendserve.

    One row per (setting, lengths, workload), with means over seeds.
    """
    keys = ["setting", "output_lengths", "workload"]
    if ok["overlap"].nunique() == 1:
        ok = ok.assign(setting=ok["setting"].str.replace(r", [^,]+ overlap$", "", regex=True))
    shares, of_optimum, speeds = (
        ok.pivot_table(index=keys, columns="scheduler", values=column, sort=False)
        for column in ("share_of_bound", "share_of_optimum", "throughput_tok_s")
    )
    schedulers = scheduler_order(shares.columns)
    table = shares[schedulers].assign(optimum=(of_optimum / shares).mean(axis="columns"))
    if {"ratio", "blendserve"} <= set(table.columns):
        table = table.assign(gain=speeds["ratio"] / speeds["blendserve"])
    return table


def _least(study: str, table: pd.DataFrame) -> Claim:
    gain = table["gain"].dropna()
    where = ", ".join(map(str, gain.index[int(gain.argmin())])) if len(gain) else "no result"
    return Claim(
        id=f"{study}.over_blendserve",
        what="ratio over blendserve, throughput: least of the grid (aim)",
        paper=TOLERATED,
        ours=float(gain.min()) if len(gain) else None,
        note=f"least at: {where}; mean {gain.mean():.3f}",
        holds=bool(gain.min() >= TOLERATED) if len(gain) else None,
    )


def _sizes(runs: pd.DataFrame) -> str:
    """Return the number of requests of the pools as text."""
    low, high = int(runs["num_requests"].min()), int(runs["num_requests"].max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _summary(table: pd.DataFrame) -> str:
    gain = table["gain"].dropna()
    lost = int((gain < TOLERATED).sum())
    return (
        f"Over {len(gain)} pairs, `ratio` over `blendserve` is {gain.mean():.3f} on average "
        f"({gain.min():.3f} to {gain.max():.3f}); below {TOLERATED}: {counted(lost, 'pair')}."
    )
