"""Studies by name, and the pages that they make up; a study is imported on first use.

To add a study, write its module in the folder of its page and add one line to `_STUDIES`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from bssim.errors import unknown_name
from bssim.experiments.result_pages.study import Study


@dataclass(frozen=True)
class Page:
    """A document of all the studies that name it."""

    name: str
    command: str
    """Name of the whole page on the command line: ``bssim reproduce COMMAND``."""
    path: Path
    title: str
    opening: str
    """Markdown: what the page is and what all of its studies have in common."""
    reference: str = "paper"
    """What bssim's numbers are compared with, in one word."""


PAPER = Page(
    "paper",
    "all",
    Path("docs/reproduction.md"),
    "The paper, side by side",
    "This page shows every figure and table of BlendServe (ASPLOS '26, doi "
    "10.1145/3779212.3790133), computed here from stated assumptions, beside the numbers that the "
    "paper prints. No constant was tuned to a speed-up or a share. Some fits of the sources were "
    "tuned to the paper's densities; figure 2 and table 4 say which. Where a choice matters, the "
    "page shows both choices. Speed-ups and shares come from the `paper` cost model (2 FLOP per "
    "parameter and token, spec-sheet peaks), because the paper's own model uses peak constants. "
    "`roofline` (operators at attainable efficiency) is shown beside it. Results on an overlapped "
    "engine (NanoFlow) are simulated only.",
)
RATIO = Page(
    "ratio",
    "ratio",
    Path("docs/evidence.md"),
    "`ratio`: the evidence",
    "This page shows how near `ratio` ([the idea](ratio.md)) comes to the tightest lower bound and "
    "how it compares with the other orders, over traces, seeds, knowledge of output lengths, "
    "overlaps, GPUs and models. Results on an overlapped engine are simulated only. No aim was "
    "changed after it was written down.",
    "aim",
)
BATCHES = Page(
    "batches",
    "batches",
    Path("docs/batches.md"),
    "Everyday batch files",
    "This page shows what an order is worth on twelve kinds of batch files that people run every "
    "day. All results are simulated.",
    "aim",
)
PUBLISHED = Page(
    "published",
    "published",
    Path("docs/published.md"),
    "Predictions beside published measurements",
    "Nobody here has a GPU, so bssim has measured nothing on one. Hundreds of measurements are "
    "public. This page simulates each published run as it was made (the same requests, limits "
    "and memory) and puts the predicted throughput beside the measured one. Errors are predicted "
    "over measured, less one: +10 % means that bssim is 10 % too fast.",
    "aim",
)
PAGES = {page.command: page for page in (PAPER, RATIO, PUBLISHED, BATCHES)}
"""By command-line name."""

MIXED = Page(
    "mixed",
    "",
    Path("studies.md"),
    "Studies of several pages",
    "Each result is shown beside the paper's number or beside bssim's own aim.",
    "reference",
)
_STUDIES: dict[str, tuple[Page, str]] = {
    "fig2": (PAPER, "bssim.experiments.result_pages.reproduction.fig2:FIG2"),
    "fig3": (PAPER, "bssim.experiments.result_pages.reproduction.fig3:FIG3"),
    "fig4": (PAPER, "bssim.experiments.result_pages.reproduction.fig4:FIG4"),
    "fig6": (PAPER, "bssim.experiments.result_pages.reproduction.fig6:FIG6"),
    "fig7a": (PAPER, "bssim.experiments.result_pages.reproduction.main_results:FIGURE_7A"),
    "fig7b": (PAPER, "bssim.experiments.result_pages.reproduction.other_models:FIGURE_7B"),
    "fig8": (PAPER, "bssim.experiments.result_pages.reproduction.fig8:FIG8"),
    "fig9": (PAPER, "bssim.experiments.result_pages.reproduction.fig9:FIG9"),
    "fig10": (PAPER, "bssim.experiments.result_pages.reproduction.fig10:FIG10"),
    "fig11": (PAPER, "bssim.experiments.result_pages.reproduction.grids:FIGURE_11"),
    "fig12": (PAPER, "bssim.experiments.result_pages.reproduction.other_models:FIGURE_12"),
    "fig13": (PAPER, "bssim.experiments.result_pages.reproduction.grids:FIGURE_13"),
    "fig14": (PAPER, "bssim.experiments.result_pages.reproduction.grids:FIGURE_14"),
    "fig15": (PAPER, "bssim.experiments.result_pages.reproduction.grids:FIGURE_15"),
    "table1": (PAPER, "bssim.experiments.result_pages.reproduction.table1:TABLE1"),
    "table2": (PAPER, "bssim.experiments.result_pages.reproduction.table2:TABLE2"),
    "table3": (PAPER, "bssim.experiments.result_pages.reproduction.data_parallel:TABLE_3"),
    "table4": (PAPER, "bssim.experiments.result_pages.reproduction.table4:TABLE4"),
    "sampling": (PAPER, "bssim.experiments.result_pages.reproduction.sampling:SAMPLING"),
    "splitting": (PAPER, "bssim.experiments.result_pages.reproduction.splitting:SPLITTING"),
    "scheduling": (PAPER, "bssim.experiments.result_pages.reproduction.scheduling:SCHEDULING"),
    "ratio_shares": (RATIO, "bssim.experiments.result_pages.evidence.shares:SHARES"),
    "ratio_blend": (RATIO, "bssim.experiments.result_pages.evidence.blend:BLEND"),
    "ratio_ablation": (RATIO, "bssim.experiments.result_pages.evidence.ablation:ABLATION"),
    "ratio_lengths": (RATIO, "bssim.experiments.result_pages.evidence.lengths:LENGTHS"),
    "ratio_exact": (RATIO, "bssim.experiments.result_pages.evidence.tiny:TINY"),
    "ratio_grid": (RATIO, "bssim.experiments.result_pages.evidence.grids:GRID"),
    "ratio_mixes": (RATIO, "bssim.experiments.result_pages.evidence.grids:MIXES"),
    "ratio_traces": (RATIO, "bssim.experiments.result_pages.evidence.grids:TRACES"),
    "ratio_gpus": (RATIO, "bssim.experiments.result_pages.evidence.grids:GPUS"),
    "ratio_models": (RATIO, "bssim.experiments.result_pages.evidence.grids:MODELS"),
    "ratio_step_cost": (RATIO, "bssim.experiments.result_pages.evidence.grids:STEP_COST"),
    "ratio_vllm": (RATIO, "bssim.experiments.result_pages.evidence.grids:VLLM"),
    "ratio_order": (RATIO, "bssim.experiments.result_pages.evidence.static_order:STATIC_ORDER"),
    "batches": (BATCHES, "bssim.experiments.result_pages.batches.study:BATCHES"),
    "published": (PUBLISHED, "bssim.experiments.result_pages.published.study:STUDY"),
}
"""Name -> page and ``module:object``, in the order of the pages."""


def study_names() -> list[str]:
    """Return the names of all studies, in the order of their pages."""
    return list(_STUDIES)


def load_study(name: str) -> Study:
    """Return the study of that name; InputError with the nearest name if there is none."""
    if name not in _STUDIES:
        raise unknown_name("reproduce", name, [*_STUDIES, *PAGES])
    module, _, attribute = _STUDIES[name][1].partition(":")
    study: Study = getattr(import_module(module), attribute)
    return study


def chosen(names: Iterable[str]) -> tuple[list[Study], Page, bool]:
    """Return the studies that ``names`` select, each once, their page, and if they are all of it.

    The name of a page selects all of its studies; studies of several pages have `MIXED`. Raises
    InputError for an unknown name.
    """
    wanted = list(dict.fromkeys(names))
    studies: dict[str, Study] = {}
    for name in wanted:
        of_page = [study for study, (of, _) in _STUDIES.items() if of is PAGES.get(name)]
        for each in of_page if name in PAGES else [name]:
            studies[each] = load_study(each)
    pages = [page for page in PAGES.values() if page in {_STUDIES[name][0] for name in studies}]
    page = pages[0] if len(pages) == 1 else MIXED
    return list(studies.values()), page, wanted == [page.command]
