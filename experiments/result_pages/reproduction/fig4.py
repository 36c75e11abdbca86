"""Figure 4: the density of a request falls with its output length."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from bssim.cost_models.density import DensityConstants, density_of_sums
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.experiments.plots import SINGLE_IN, head, new_figure, styled
from bssim.experiments.result_pages.reproduction.source_draws import NAMES, NUM_DRAWS, draw, look
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.sweeps import Results
from bssim.sim.workload import request_density

SOURCES = ("sharegpt", "wildchat", "burstgpt", "azure", "openvid", "limo", "mmlu")
"""In drawing order: MMLU's points are all in one place, so they come last."""
POINTS = 400
"""Requests drawn as points, of each source."""

TEXT = """
Every point is one request of a source, priced alone (no sharing), for Llama-3-8B on one A100-80GB
at peak rates. The paper's formulas give density = k (p + d) / (d (p + d/2)). A request's density
therefore lies between k/d (prompt much longer than output) and 2k/d (the reverse), with k =
{k:.0f} tokens: the grey band. The output length alone gives the density within a factor of two,
whatever the prompt. A request is compute-intensive below {k:.0f} output tokens and
memory-intensive above {twice:.0f}. This is why output lengths decide the order, and why it pays
to run a sample first: nobody knows the lengths beforehand.

The paper's Figure 4 shows the same fall. We have no number from it to compare with.
"""


class Figure4:
    """Density against output length, request by request."""

    name = "fig4"
    title = "Figure 4: density against output length"

    def __init__(self, num_draws: int = NUM_DRAWS) -> None:
        """``num_draws``: requests drawn of each source."""
        self.num_draws = num_draws

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return nothing: this study reads no sweep."""
        return ()

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        unit = DensityConstants.of(load_llm("llama-3-8b"), load_hardware("a100-80gb"))
        k = density_of_sums(0.0, 1.0, 1.0, unit)
        claims = []
        for name in SOURCES:
            density = request_density(draw(name, self.num_draws))
            claims.append(
                Claim(
                    f"fig4.{name}.memory_intensive",
                    f"{NAMES[name]}: share of requests with density below 1",
                    None,
                    float(np.mean(density < 1.0)),
                    f"median density {np.median(density):.3g}",
                )
            )
        return Chapter(
            claims=claims,
            text=TEXT.format(k=k, twice=2 * k),
            figures={"fig4": density_figure(k, self.num_draws)},
            captions={
                "fig4": "Density of single requests against their output length, both on log "
                "scales. Grey: all that the formulas allow; dotted: density 1."
            },
        )


def density_figure(k: float, num_draws: int) -> Figure:
    """Return the scatter of all sources with the band k/d to 2k/d."""
    with styled():
        figure = new_figure(SINGLE_IN, 2.9)
        axes = figure.add_subplot()
        lengths = np.geomspace(1, 2e5, 50)
        axes.fill_between(lengths, k / lengths, 2 * k / lengths, color="0.85", lw=0)
        for name in SOURCES:
            colour, marker = look(name)
            pool = draw(name, num_draws)
            axes.scatter(
                pool.output_tokens[:POINTS],
                request_density(pool)[:POINTS],
                s=16 if name == "mmlu" else 4,
                color=colour,
                marker=marker,
                linewidths=0,
                alpha=0.6,
                label=NAMES[name],
                rasterized=True,
            )
        axes.axhline(1.0, color="black", lw=0.6, ls=":")
        axes.set(
            xscale="log",
            yscale="log",
            xlabel="output tokens",
            ylabel="density (compute s / memory s)",
            xlim=(1, 2e5),
        )
        legend = figure.legend(
            loc="outside lower center",
            ncols=4,
            markerscale=2,
            columnspacing=1.0,
            handletextpad=0.2,
        )
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1.0)
        head(
            figure,
            "Density falls as one over the output length, whatever the source",
            "single requests, llama-3-8b on a100-80gb",
        )
    return figure


FIG4 = Figure4()
