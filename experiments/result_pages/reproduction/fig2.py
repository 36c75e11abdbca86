"""Figure 2: how long prompts and outputs of the sources are, and their compute densities."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bssim.experiments.plots import DOUBLE_IN, head, new_figure, ratio_range, styled
from bssim.experiments.result_pages.reproduction.source_draws import (
    NAMES,
    NUM_DRAWS,
    density_note,
    draw,
    is_tuned,
    look,
    numbers,
)
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.sweeps import Results
from bssim.sim.workload import describe, load_workload, published

SOURCES = ("wildchat", "burstgpt", "azure", "openvid", "mmlu", "limo")
BEFORE_SCALING = {"wildchat": 510.0, "openvid": 43726.0}
"""Mean outputs that Figure 2 prints and appendix A.3 then scales down."""
REAL_MMLU = "mmlu_5shot_llama3_lengths.csv"
"""In the folder that BSSIM_TRACES names: the lengths of the real questions."""
LINE_STYLES = ("-", "--", "-.", (0, (1, 1)), "-", "--")

TEXT = """
This figure shows six sources, each drawn {draws:,} times from the fits that ship with bssim. The
traces behind five of them are not public in the paper's form. Their **means are therefore
inputs** here: they are the paper's own, with the outputs of OpenVid and WildChat scaled as in its
appendix A.3. Only the spread around the means is ours. For the hollow circles in the right panel,
one number of the fit was also chosen so that the density agrees, so their agreement proves
nothing. Two densities remain as a real comparison: Azure's and MMLU's. (Half of WildChat's
prompts have the same length, because the system prompt that gives its sharing of 19 % is longer
than half of the fitted prompts.)

MMLU's prompts are shorter here ({mmlu_prompt:.0f} tokens; {mmlu_paper:.0f} in the paper), so its
density is higher. These are the public questions with the Llama-3 tokenizer and one five-shot
prompt per subject. The paper does not print its template. {real}

The densities of the sources span three orders of magnitude. This is what makes blending possible.
"""


class Figure2:
    """Length distributions and densities of six sources."""

    name = "fig2"
    title = "Figure 2: lengths and densities of the sources"

    def __init__(self, num_draws: int = NUM_DRAWS) -> None:
        """``num_draws``: requests drawn of each source."""
        self.num_draws = num_draws

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return nothing: this study reads no sweep."""
        return ()

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        claims, ours = [], {}
        for name in SOURCES:
            found, paper = numbers(name, self.num_draws), published(name)
            ours[name] = found["density"]
            for key, length, mean in (
                ("prompt", "prompt", paper.prompt_tokens_mean),
                ("output", "output", paper.output_tokens_mean),
            ):
                note = "" if name == "mmlu" else "an input of the fit"
                if key == "output" and name in BEFORE_SCALING:
                    note += f"; {BEFORE_SCALING[name]:,.0f} before the scaling of appendix A.3"
                claims.append(
                    Claim(
                        f"fig2.{name}.{key}_tokens",
                        f"{NAMES[name]}: mean {length} (tokens)",
                        mean,
                        found[f"{length}_tokens_mean"],
                        note,
                    )
                )
            claims.append(
                Claim(
                    f"fig2.{name}.density",
                    f"{NAMES[name]}: density",
                    paper.density,
                    found["density"],
                    density_note(name),
                )
            )
        real = _real_mmlu()
        text = TEXT.format(
            draws=self.num_draws,
            mmlu_prompt=numbers("mmlu", self.num_draws)["prompt_tokens_mean"],
            mmlu_paper=published("mmlu").prompt_tokens_mean,
            real=real,
        )
        return Chapter(
            claims=claims,
            text=text,
            figures={"fig2": lengths_figure(ours, self.num_draws)},
            captions={
                "fig2": "Share of requests up to each prompt and output length, and the densities: "
                "ours (circles; hollow: tuned to the paper's) beside the paper's (crosses)."
            },
        )


def _real_mmlu() -> str:
    """Compare with the real MMLU lengths, if BSSIM_TRACES has them."""
    folder = os.environ.get("BSSIM_TRACES")
    path = Path(folder or "") / REAL_MMLU
    if not folder or not path.is_file():
        return (
            "The lengths of the single questions were not available when this page was made "
            "(`BSSIM_TRACES` names their folder)."
        )
    found = describe(load_workload(path))
    return (
        f"The {found['num_requests']:,} questions themselves, each with its own length, give "
        f"{found['prompt_tokens_mean']:.0f} tokens, sharing {found['sharing_max']:.3f} and density "
        f"{found['density']:.1f}."
    )


def lengths_figure(ours: Mapping[str, float], num_draws: int) -> Figure:
    """Return the distributions of prompt and output lengths, and both sets of densities."""
    with styled():
        figure = new_figure(DOUBLE_IN, 2.3)
        prompt_axes, output_axes, density_axes = figure.subplots(
            1, 3, gridspec_kw={"width_ratios": (1, 1, 0.85)}
        )
        for place, name in enumerate(SOURCES):
            colour, _ = look(name)
            pool = draw(name, num_draws)
            for axes, tokens in (
                (prompt_axes, pool.prompt_tokens),
                (output_axes, pool.output_tokens),
            ):
                level = np.linspace(0.0, 1.0, 401)
                at = np.quantile(tokens, level)
                axes.plot(at, level * 100, color=colour, ls=LINE_STYLES[place], label=NAMES[name])
            face = "none" if is_tuned(name) else colour
            density_axes.plot(
                ours[name], place, "o", color=colour, markerfacecolor=face, markersize=6
            )
            density_axes.plot(published(name).density, place, "x", color="black", markersize=4)
        for axes, label in ((prompt_axes, "prompt tokens"), (output_axes, "output tokens")):
            axes.set(xscale="log", xlabel=label, ylim=(0, 100), xlim=(1, 3e5))
        prompt_axes.set_ylabel("requests up to this length (%)")
        density_axes.set(xscale="log", xlabel="compute s / memory s", xlim=(0.02, 200))
        density_axes.set_yticks(range(len(SOURCES)), [NAMES[name] for name in SOURCES])
        density_axes.invert_yaxis()
        density_axes.axvline(1.0, color="black", lw=0.6, ls=":")
        lines, labels = prompt_axes.get_legend_handles_labels()
        circle = Line2D([], [], ls="none", marker="o", color="0.4", markersize=5)
        cross = Line2D([], [], ls="none", marker="x", color="black", markersize=4)
        figure.legend(
            [*lines, circle, cross],
            [*labels, "ours (hollow: tuned)", "paper"],
            loc="outside lower center",
            ncols=8,
            columnspacing=1.2,
            handlelength=1.8,
        )
        densities = [published(name).density for name in SOURCES]
        ratios = [ours[name] / paper for name, paper in zip(SOURCES, densities, strict=True)]
        head(
            figure,
            f"The densities of all sources are {ratio_range(np.array(ratios))} the paper's",
            f"{num_draws:,} requests drawn per source; densities of llama-3-8b on a100-80gb",
        )
    return figure


FIG2 = Figure2()
