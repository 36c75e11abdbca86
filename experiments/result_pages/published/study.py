"""`bssim reproduce published`: docs/published.md."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from bssim.experiments.plots import scatter_figure
from bssim.experiments.result_pages.published import text
from bssim.experiments.result_pages.published.host_fit import fitted_constants
from bssim.experiments.result_pages.published.predictions import (
    errors,
    predictions,
    priced,
    summary,
)
from bssim.experiments.result_pages.published.ratios import ratio_table
from bssim.experiments.result_pages.published.worst import worst_trials
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.sweeps import Cell, Results

NAME = "published"
LATE = 2025
"""Releases from this year on have the stricter aims for several GPUs."""


class Published:
    """Predicted and measured throughput of every published run."""

    name = NAME
    title = "How well bssim predicts"

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return nothing: the rows are not a grid."""
        return ()

    def cells(self, num_requests: int | None) -> Sequence[Cell]:
        """Return the cells of the published rows that bssim can price.

        Rows of two releases that ran the same load in the same way share a cell.
        """
        pairs = zip(priced()[0], priced(num_requests)[0], strict=True)
        return list({whole.config_hash: cell for (_, whole), (_, cell) in pairs}.values())

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        everything = predictions(results[self.name].read_runs())
        servers, table = (everything[everything["server"] == is_one] for is_one in (True, False))
        held_out = table[~table["fitted"]]
        cells = dict(priced()[0])
        page = text.PAGE.format(
            rows=len(table),
            fitted=int(table["fitted"].sum()),
            releases=text.releases_table(everything),
            constants=text.constants_table(fitted_constants(table)),
            left_out=text.left_out(priced()[1]),
            kinds=text.error_table(_by_kind(table, servers), "which rows"),
            servers=text.servers_table(servers),
            groups=_groups(held_out),
            fitted_groups=_groups(table[table["fitted"]]),
            loads=text.load_table(held_out),
            ratios=text.ratio_table(ratio_table(held_out)),
            worst=text.worst_table(worst_trials(held_out, cells)),
        )
        return Chapter(_claims(held_out), page, {NAME: _figure(everything)}, {NAME: text.CAPTION})


def _by_kind(table: pd.DataFrame, servers: pd.DataFrame) -> pd.DataFrame:
    """Return the errors of fitted rows, and of the others by the groups of the aims.

    ``servers`` are rows that ran behind an HTTP server, by GPU.
    """
    held_out = table[~table["fitted"]]
    groups = {"fitted to": table[table["fitted"]]["error"]} | {
        f"predicted: {name}": held_out[mask]["error"] for name, mask in _kinds(held_out).items()
    }
    groups |= {
        f"predicted: servers, {gpu}": rows["error"]
        for gpu, rows in servers.groupby("gpu", sort=False)
    }
    return pd.DataFrame.from_dict({k: summary(v) for k, v in groups.items()}, orient="index")


def _kinds(table: pd.DataFrame) -> "dict[str, pd.Series[bool]]":
    one = (table["tp"] == 1) & ~table["moe"]
    late = table["year"] >= LATE
    return {
        "one GPU, FP16": one & (table["precision"] == "fp16"),
        "one GPU, FP8": one & (table["precision"] == "fp8"),
        f"TP and MoE, {LATE} and later": ~one & late,
        f"TP and MoE, before {LATE}": ~one & ~late,
    }


def _claims(table: pd.DataFrame) -> list[Claim]:
    """Return the aims beside the results on rows that nothing was fitted to."""
    kinds = list(_kinds(table).items())
    aims = [("median", 0.05), ("median", 0.08), ("median", 0.12), ("median", 0.20)]
    claims = [
        _claim(f"{NAME}.{i}", name, "median error", aim, summary(table[mask]["error"])[measure])
        for i, ((name, mask), (measure, aim)) in enumerate(zip(kinds, aims, strict=True))
    ]
    name, mask = kinds[0]
    wide = summary(table[mask]["error"])["p90"]
    return [claims[0], _claim(f"{NAME}.0_90", name, "90 % of rows within", 0.12, wide), *claims[1:]]


def _claim(key: str, rows: str, what: str, aim: float, ours: float) -> Claim:
    note = "" if ours <= aim else "see *Where the errors are*"
    return Claim(key, f"{rows}: {what} (share)", aim, round(ours, 4), note, holds=ours <= aim)


def _groups(table: pd.DataFrame) -> str:
    """Return the errors by release, GPU, precision and GPUs per replica as Markdown."""
    ordered = table.sort_values(["release", "gpu", "precision", "moe", "tp"], kind="stable")
    model = ordered["moe"].map({True: "MoE", False: "dense"})
    found = errors(ordered.assign(model=model), ["release", "gpu", "precision", "model", "tp"])
    return text.error_table(found, None)


def _figure(table: pd.DataFrame) -> Figure:
    columns = {"output_tokens_per_s": "measured"}
    panels = {
        name: table[mask].rename(columns=columns)
        for name, mask in {
            "FP16, dense": table["precision"].isin(["fp16", "bf16"]) & ~table["moe"],
            "FP8, dense": table["precision"].isin(["fp8", "fp8-kv16"]) & ~table["moe"],
            "MoE": table["moe"],
        }.items()
        if mask.any()
    }
    counts = f"{len(table):,} published rows, {table['gpu'].nunique()} GPUs"
    return scatter_figure(panels, "output tokens/s", f"{counts}; one replica")


STUDY = Published()
