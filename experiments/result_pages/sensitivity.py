"""How much a speed-up depends on the cost model and on the overlap: docs/sensitivity.md.

    bssim sweep configs/sensitivity/speedup.yaml
    python -m bssim.experiments.result_pages.sensitivity results/sensitivity [PAGE]

writes the page, and its figure into ``figures/`` beside it, from the sweep's runs.csv alone.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bssim.errors import InputError
from bssim.experiments.markdown import markdown_table
from bssim.experiments.plots import conditions_of, save, sensitivity_figure
from bssim.experiments.sweeps import Results

PAGE = Path("docs/sensitivity.md")
BASELINE, CANDIDATE = "dfs", "blendserve"
FULL_SIZE = 400_000
"""Requests of a trace in the paper's comparison; smaller pools hold too few waves of requests."""


def speedups(runs: pd.DataFrame) -> pd.DataFrame:
    """Return throughput of blendserve over dfs by (cost_model, overlap) and workload.

    Rows and columns keep the order of the sweep; a missing result is NaN. Raises InputError if a
    cell of the table has several runs (two models, seeds, ...) or neither scheduler ran.
    """
    keys = ["cost_model", "overlap", "workload", "scheduler"]
    repeated = runs[runs.duplicated(keys)]
    if len(repeated):
        found = ", ".join(str(repeated.iloc[0][key]) for key in keys)
        raise InputError(
            "sensitivity", f"several runs of {found}", "a sweep of cost models and overlaps alone"
        )
    ok = runs[runs["status"] == "ok"]
    table = ok.set_index(keys)["throughput_tok_s"].unstack("scheduler", sort=False)
    missing = {BASELINE, CANDIDATE} - set(table.columns)
    if missing:
        raise InputError(
            "sensitivity",
            f"no finished run of {', '.join(sorted(missing))}",
            f"{BASELINE} and {CANDIDATE}",
        )
    gain: pd.Series[float] = table[CANDIDATE] / table[BASELINE]
    every = pd.MultiIndex.from_frame(runs[["cost_model", "overlap"]].drop_duplicates())
    return gain.unstack("workload", sort=False).reindex(every)


def widest(table: pd.DataFrame, over: str) -> str:
    """Return where `speedups` move most over one level of the rows, the other level held fixed."""
    (fixed,) = (name for name in table.index.names if name != over)
    groups = table.groupby(level=fixed, sort=False)
    moves = groups.max() - groups.min()
    workload = str(moves.max().idxmax())
    at = moves[workload].idxmax()
    values = table.xs(at, level=fixed)[workload].dropna().sort_values()
    names = values.index.tolist()
    return (
        f"{moves[workload].max():.3f} ({workload}, {at}: {values.iloc[0]:.3f}x with {names[0]}, "
        f"{values.iloc[-1]:.3f}x with {names[-1]})"
    )


def page(runs: pd.DataFrame, figure: str) -> str:
    """Return the page as Markdown; ``figure`` is the link of the figure."""
    table = speedups(runs)
    done = runs[runs["status"] == "ok"]
    one = done.iloc[0]
    requests = int(one["num_requests"])
    lines = [
        "# Sensitivity: who prices the steps, and how much they overlap",
        "",
        f"Speed-up of {CANDIDATE} over {BASELINE}: {requests:,} requests a trace, {one['model']} "
        f"on {one['hardware']}, engine {one['engine']}, seed {one['seed']}, output lengths "
        f"{one['output_lengths']}, bssim {one['bssim_version']}. Everything with an overlap other "
        "than sequential is simulated only.",
        "",
        "Made by `bssim sweep configs/sensitivity/speedup.yaml`, then `python -m "
        "bssim.experiments.result_pages.sensitivity results/sensitivity`.",
        "",
    ]
    if requests < FULL_SIZE:
        lines += [f"**A trial at fewer than {FULL_SIZE:,} requests: not to be quoted.**", ""]
    rows = []
    for setting, gains in zip(table.index.tolist(), table.to_numpy(), strict=True):
        values = [*gains, gains.mean()]
        rows.append([*setting, *("" if pd.isna(value) else f"{value:.3f}x" for value in values)])
    lines += markdown_table(["cost model", "overlap", *table.columns, "mean"], rows, "ll")
    lines += [
        "",
        f"- Between cost models, at one overlap, a trace's speed-up moves by at most "
        f"{widest(table, 'cost_model')}.",
        f"- Between overlaps, under one cost model, by at most {widest(table, 'overlap')}.",
    ]
    gammas = table[table.index.get_level_values("overlap").str.match("gamma:|perfect$")]
    if len(gammas) and gammas.notna().any(axis=None):
        lines.append(
            f"- Between perfect overlap (gamma 0) and gamma 0.3, by at most "
            f"{widest(gammas, 'overlap')}."
        )
    if len(done) < len(runs):
        first = runs[runs["status"] != "ok"].iloc[0]
        lines.append(
            f"- {len(runs) - len(done)} of {len(runs)} runs have no result; the first is "
            f"{first['workload']}, {first['scheduler']}, {first['cost_model']}: {first['error']}"
        )
    lines += ["", f"![Speed-up by trace, cost model and overlap]({figure})", ""]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Write the page of a results folder."""
    if len(arguments) not in (1, 2):
        raise InputError.saying(
            "sensitivity", "expected RESULTS and, if not docs/sensitivity.md, PAGE"
        )
    runs = Results(Path(arguments[0])).read_runs()
    target = Path(arguments[1]) if len(arguments) == 2 else PAGE
    table = speedups(runs)
    conditions = conditions_of(runs.drop(columns=["overlap", "cost_model"]))
    figure = sensitivity_figure(table, conditions)
    png, _ = save(figure, target.parent / "figures" / target.stem)
    target.write_text(page(runs, f"figures/{png.name}"), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
