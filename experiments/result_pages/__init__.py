"""The pages of results in `docs/`: one folder per page, and the studies that fill it.

- `reproduction/`: every figure and table of BlendServe beside the paper's;
- `evidence/`: how near `ratio` comes to the bound, and what each part of it contributes;
- `published/`: predictions beside throughput that others measured;
- `batches/`: what an order is worth on everyday batch files;
- `sensitivity.py`: a page of its own, `python -m bssim.experiments.result_pages.sensitivity`.

A study is many simulations that together answer one question. `bssim reproduce` runs studies
(`runner.py`) and writes their page (`page.py`). To add one, write its module in the folder of its
page and add a line to `registry.py`. Studies are imported one at a time, by their name, so the
folders export nothing.
"""

from bssim.experiments.result_pages.page import save_figures, shown, verdict, write_page
from bssim.experiments.result_pages.registry import PAGES, chosen, study_names
from bssim.experiments.result_pages.runner import Finished, InterruptedStudyError, run_studies
from bssim.experiments.result_pages.study import Chapter, Claim, Study

__all__ = [
    "PAGES",
    "Chapter",
    "Claim",
    "Finished",
    "InterruptedStudyError",
    "Study",
    "chosen",
    "run_studies",
    "save_figures",
    "shown",
    "study_names",
    "verdict",
    "write_page",
]
