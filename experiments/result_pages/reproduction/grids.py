"""Figures 11 and 13 to 15: BlendServe over NanoFlow-DFS on grids of density and sharing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from bssim.experiments.plots import GRID_AXES, conditions_of, heatmaps
from bssim.experiments.result_pages.reproduction import published
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import by_grid, frame_table
from bssim.experiments.sweeps import Results

LARGE = "paper/fig11.yaml"
SMALL, SMALL_WHOLE = "paper/fig11-40000.yaml", "paper/fig11-40000-full.yaml"


def speedups(results: Results) -> pd.DataFrame:
    """Return BlendServe over DFS on a grid."""
    return by_grid(results, "blendserve", "dfs")


class Figure11:
    """The whole grid at ten times the paper's requests per point, and at the paper's own 40,000."""

    name = "fig11"
    title = "Figure 11: speed-up over NanoFlow-DFS by density and sharing"

    def sweeps(self, full: bool) -> Sequence[str]:
        """See `Study.sweeps`."""
        return (LARGE, SMALL_WHOLE if full else SMALL)

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        large, small = (speedups(results[name]) for name in self.sweeps(full))
        paper = pd.DataFrame(
            published.FIGURE_11,
            index=list(published.GRID_DENSITIES),
            columns=list(published.GRID_SHARINGS),
        )
        size_large, size_small = (
            f"{_size(results[name]):,} requests" for name in self.sweeps(full)
        )
        difference = pd.DataFrame(large.to_numpy() - paper.to_numpy(), large.index, large.columns)
        claims = [
            *_summary("fig11", f"{size_large} a point", large, paper),
            *_summary("fig11.at40000", f"{size_small} a point", small, _at(paper, small)),
            Claim(
                "fig11.difference",
                "mean absolute difference of the speed-up from the paper's, over the grid",
                0.0,
                float(np.abs(difference.to_numpy()).mean()),
            ),
        ]
        text = "\n\n".join(
            [
                "Mixes of BurstGPT, OpenVid and MMLU, Llama-3-8B on one A100, `paper` cost model."
                " The paper's grid has 40,000 requests per point. So few of them are long "
                "outputs, which carry nearly all memory time, that almost all of these fit the KV"
                " cache at once and run from the start, whatever the order (Table 2 counts them "
                "in larger pools). We therefore also ran the grid with more requests.",
                frame_table(
                    _ranges(
                        {f"ours, {size_large}": large, f"ours, {size_small}": small, "paper": paper}
                    ),
                    "{:.3f}".format,
                    "speed-up",
                ),
            ]
        )
        figures = {
            "fig11": heatmaps(
                {f"ours, {size_large}": large, "paper": paper},
                *GRID_AXES,
                ("ours - paper", difference),
                conditions=_conditions(results[self.sweeps(full)[0]]),
            ),
            "fig11-40000": heatmaps(
                {f"ours, {size_small}": small},
                *GRID_AXES,
                conditions=_conditions(results[self.sweeps(full)[1]]),
            ),
        }
        captions = {
            "fig11": f"BlendServe over NanoFlow-DFS at {size_large} a point, the paper's figure "
            "11, and the difference.",
            "fig11-40000": f"The same at {size_small} a point.",
        }
        return Chapter(claims, text, figures, captions)


@dataclass(frozen=True)
class OtherGrid:
    """The grid with another compute-intensive source; only part of it unless ``full``."""

    name: str
    title: str
    part: str
    whole: str
    mixed: str
    """Which source replaces which."""
    why_size: str = ""
    """The reason for the number of requests per point; printed after the number."""
    note: str = ""

    def sweeps(self, full: bool) -> Sequence[str]:
        """See `Study.sweeps`."""
        return (self.whole if full else self.part,)

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        (mine,) = self.sweeps(full)
        gain = speedups(results[mine])
        low, high = published.GRID_RANGES[self.name]
        points = f"{gain.shape[0]} x {gain.shape[1]} points"
        claims = [
            Claim(
                f"{self.name}.{key}",
                f"BlendServe over NanoFlow-DFS, {word} of {points}",
                paper,
                value,
                self.note if key == "min" else "",
            )
            for key, word, paper, value in (
                ("min", "smallest", low, _of(gain, "min")),
                ("max", "largest", high, _of(gain, "max")),
            )
        ]
        claims.append(_never_slower(self.name, points, gain))
        part = "" if full else " `--full` runs all densities and sharings."
        size = f"{_size(results[mine]):,} requests per point{self.why_size}"
        text = f"{self.mixed}, {points} of {size}.{part} {self.note}".strip()
        figure = heatmaps(
            {"BlendServe over NanoFlow-DFS": gain},
            *GRID_AXES,
            conditions=conditions_of(results[mine].read_runs()),
        )
        caption = f"BlendServe over NanoFlow-DFS; the paper's range is {low} to {high}."
        return Chapter(claims, text, {self.name: figure}, {self.name: caption})


def _conditions(results: Results) -> str:
    return f"BlendServe over NanoFlow-DFS, {conditions_of(results.read_runs())}"


def _at(paper: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's values at the points of a part of the grid."""
    rows = paper.reindex(index=points.index, method="nearest", tolerance=1e-6)
    return rows.reindex(columns=points.columns, method="nearest", tolerance=1e-6)


def _summary(key: str, size: str, gain: pd.DataFrame, paper: pd.DataFrame) -> list[Claim]:
    what = f"BlendServe over NanoFlow-DFS, {{}} of the grid, {size}"
    return [
        *(
            Claim(f"{key}.{name}", what.format(word), _of(paper, name), _of(gain, name))
            for name, word in (("min", "smallest"), ("max", "largest"), ("mean", "mean"))
        ),
        _never_slower(key, f"the grid, {size}", gain),
    ]


def _never_slower(key: str, where: str, gain: pd.DataFrame) -> Claim:
    values = gain.to_numpy()
    wins = int((values > 1).sum())
    return Claim(
        f"{key}.wins",
        f"points at which BlendServe is faster than NanoFlow-DFS, of {where}",
        f"all {values.size}",
        f"{wins} of {values.size}",
        holds=None if np.isnan(values).any() else wins == values.size,
    )


def _of(table: pd.DataFrame, name: str) -> float:
    """Return ``min``, ``mean`` or ``max`` over a grid; NaN where a point is missing."""
    values: npt.NDArray[np.float64] = table.to_numpy(dtype=float).ravel()
    return float({"min": values.min(), "mean": values.mean(), "max": values.max()}[name])


def _size(results: Results) -> int:
    """Return the requests per point."""
    return int(results.read_runs()["num_requests"].max())


def _ranges(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return smallest, mean and largest: one row per grid, named with its points."""
    return pd.DataFrame(
        {
            f"{which}, {' x '.join(map(str, table.shape))} points": {
                name: _of(table, name) for name in ("min", "mean", "max")
            }
            for which, table in tables.items()
        }
    ).T


FIGURE_11 = Figure11()
FIGURE_13 = OtherGrid(
    "fig13",
    "Figure 13: the grid with Azure",
    "paper/fig13.yaml",
    "paper/fig13-full.yaml",
    "Azure in place of BurstGPT",
    ": its prompts are ten times as long as BurstGPT's, so a tenth of the requests needs as many "
    "long outputs to balance them",
)
FIGURE_14 = OtherGrid(
    "fig14",
    "Figure 14: the grid with ShareGPT",
    "paper/fig14.yaml",
    "paper/fig14-full.yaml",
    "ShareGPT in place of BurstGPT",
)
FIGURE_15 = OtherGrid(
    "fig15",
    "Figure 15: the grid with WildChat",
    "paper/fig15.yaml",
    "paper/fig15-full.yaml",
    "WildChat in place of BurstGPT",
    note="WildChat's own sharing is 0.19 (table 4), so the columns 0.05 and 0.15 of the paper's "
    "figure cannot be mixed from it and are left out.",
)
