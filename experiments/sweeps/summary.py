"""summary.md: the sweep as Markdown tables, schedulers from best to worst."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from bssim.experiments.markdown import markdown_table
from bssim.experiments.sweeps.winners import (
    BASELINES,
    conclusion,
    tail_sentence,
    winners,
    winners_markdown,
)
from bssim.sim.result import NOTED_TAIL
from bssim.wording import counted

OVERLAP_NOTE = (
    "**Simulated only.** Rows with an overlapped engine (`overlap` other than `sequential`) run "
    "compute and memory operators at the same time. Stock vLLM and SGLang run them one after "
    "another, so a replay there can confirm order, prefix hits and steps, not these throughputs."
)


def summary_markdown(
    runs: pd.DataFrame, settings: Mapping[str, str], notes: Mapping[str, Sequence[str]]
) -> str:
    """Return the summary of ``runs``.

    ``settings`` names each config_hash's setting (model, hardware, engine, ...), and each gets a
    section; ``notes`` maps a subject to its notes. Results are means over the seeds that all
    schedulers have; a scheduler without any result is a dash.
    """
    name = runs["config"].iloc[0] if len(runs) else "empty sweep"
    counts = runs["status"].value_counts()
    total = ", ".join(f"{counts[s]} {s}" for s in ("ok", "failed", "skipped") if s in counts)
    lines = [
        f"# {name}",
        "",
        *answer(runs, settings),
        f"{counted(len(runs), 'cell')}: {total}.",
        "",
    ]
    ok = _finished(runs, settings)
    for setting, group in ok.groupby("setting", sort=False):
        lines += [f"## {setting}", ""]
        if missing := list(_missing_seeds(group)):
            lines += ["**Seeds are missing;** means are over those that all schedulers have:", ""]
            lines += [*missing, ""]
        for title, text, table in _tables(group, list(dict.fromkeys(runs["scheduler"]))):
            lines += [f"### {title}", "", *_markdown(table, text, title.startswith("Speed-up")), ""]
    if (ok["overlap"] != "sequential").any():
        lines += [OVERLAP_NOTE, ""]
    failed = runs[runs["status"] != "ok"]
    if len(failed):
        lines += ["## Cells without a result", ""]
        lines += [
            f"- `{r.workload}` / `{r.scheduler}` ({r.status}, `{r.config_hash}`): {r.error}"
            for r in failed.itertuples()
        ]
        lines.append("")
    if any(notes.values()):
        lines += ["## Notes", ""]
        subjects: dict[str, list[str]] = {}
        for what, all_ in notes.items():
            for note in all_:
                subjects.setdefault(note, []).append(what)
        lines += [f"- {', '.join(whats)}: {note}" for note, whats in subjects.items()]
        lines.append("")
    return "\n".join(lines)


def answer(runs: pd.DataFrame, settings: Mapping[str, str]) -> list[str]:
    """Return the answer in Markdown lines: a sentence, the winner of every setting, long tails."""
    table = winners_of(runs, settings)
    tail = tail_sentence(table)
    return [
        conclusion(table),
        "",
        *([*winners_markdown(table), ""] if len(table) else []),
        *([tail, ""] if tail else []),
    ]


def winners_of(runs: pd.DataFrame, settings: Mapping[str, str]) -> pd.DataFrame:
    """Return the table of `winners` of ``runs``; ``settings`` as in `summary_markdown`."""
    return winners(with_common_seeds(_finished(runs, settings)))


def _finished(runs: pd.DataFrame, settings: Mapping[str, str]) -> pd.DataFrame:
    return runs[runs["status"] == "ok"].assign(setting=runs["config_hash"].map(dict(settings)))


def with_common_seeds(ok: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of seeds that all schedulers of a workload and setting have.

    Means over different seeds would compare pools, not schedulers. A scheduler without any result
    there is ignored. ``ok`` are finished rows with a column ``setting``.
    """
    place = ["setting", "workload"]
    all_ = ok.groupby(place)["scheduler"].transform("nunique")
    have = ok.groupby([*place, "seed"])["scheduler"].transform("nunique")
    return ok[have == all_]


def _missing_seeds(group: pd.DataFrame) -> Iterator[str]:
    """Yield a line of Markdown for each seed that `with_common_seeds` leaves out."""
    for workload, rows in group.groupby("workload", sort=False):
        schedulers = list(dict.fromkeys(rows["scheduler"]))
        for seed, mine in rows.groupby("seed"):
            lacking = [name for name in schedulers if name not in set(mine["scheduler"])]
            if lacking:
                names = ", ".join(f"`{name}`" for name in lacking)
                yield f"- `{workload}`: without seed {seed}, which lacks {names}"


def _tables(
    finished: pd.DataFrame, schedulers: Sequence[str]
) -> Iterator[tuple[str, Callable[[float], str], pd.DataFrame]]:
    """Yield (title, cell format, table): one line per workload, one column per scheduler.

    ``finished`` are the ok rows of one setting.
    """
    group = with_common_seeds(finished)
    workloads = pd.Index(finished["workload"].unique(), name="workload")
    empty = pd.DataFrame(index=workloads, columns=list(schedulers))
    throughput = _pivot(group, "throughput_tok_s", empty)
    # geometric means, so that one large workload does not decide the order of the columns
    best_first = list(_geometric_mean(throughput).sort_values(ascending=False, kind="stable").index)
    optimum = group.groupby("workload", sort=False)["optimum_tok_s"].max().rename("optimum")
    optimum = optimum.astype("float64")  # like the other columns: a missing value is NaN, not NA
    yield (
        "Throughput, (prompt + output) tokens/s",
        "{:,.0f}".format,
        throughput[best_first].join(optimum),
    )
    for baseline in BASELINES:
        others = [s for s in best_first if s != baseline]
        if baseline in throughput and throughput[baseline].notna().any() and others:
            table = throughput[others].div(throughput[baseline], axis=0)
            yield f"Speed-up over {baseline}", "{:.3f}x".format, table
    for column, what in (
        ("share_of_bound", "tightest lower bound"),
        ("share_of_optimum", "practical optimum"),
    ):
        yield f"Share of the {what}", "{:.1%}".format, _pivot(group, column, empty)[best_first]
    if (group["tail_share"].fillna(0.0) > NOTED_TAIL).any():
        for column, title, text in (
            ("tail_share", "Share of the makespan in the tail", "{:.1%}"),
            ("throughput_without_tail_tok_s", "Throughput without the tail, tokens/s", "{:,.0f}"),
        ):
            yield title, text.format, _pivot(group, column, empty)[best_first]
    limit = group.groupby("workload", sort=False)["sharing_max"].max().rename("maximum")
    limit = limit.astype("float64")
    sharing = _pivot(group, "sharing", empty)[best_first].join(limit)
    yield "Prefix sharing: prompt tokens found cached", "{:.1%}".format, sharing


def _pivot(group: pd.DataFrame, column: str, empty: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds by workload and scheduler, in the shape of ``empty``."""
    means = group.groupby(["workload", "scheduler"], sort=False)[column].mean().unstack(sort=False)
    return means.reindex(index=empty.index, columns=empty.columns).astype("float64")


def _geometric_mean(table: pd.DataFrame) -> "pd.Series[float]":
    return pd.Series({c: np.exp(np.log(table[c]).mean()) for c in table}, dtype="float64")


def _markdown(table: pd.DataFrame, text: Callable[[float], str], ratios: bool) -> list[str]:
    """Return a table of workloads; tables of ratios end with a row of geometric means."""

    def shown(values: Iterable[float]) -> list[str]:
        return ["-" if value != value else text(value) for value in values]

    rows = [[str(workload), *shown(row)] for workload, row in table.iterrows()]
    if ratios and len(table) > 1:
        known = [column if table[column].notna().all() else None for column in table]
        means = [float("nan") if c is None else np.exp(np.log(table[c]).mean()) for c in known]
        rows.append(["*geometric mean*", *shown(means)])
    return markdown_table(["workload", *table.columns], rows)
