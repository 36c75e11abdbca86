"""Studies: many simulations that together answer one question, written up beside a reference.

`bssim reproduce` runs them. Each folder holds the studies of one page of the documentation:

- `paper/`: docs/reproduction.md, the figures and tables of BlendServe;
- `ratio/`: docs/evidence.md; `published/`: docs/published.md; `batches/`: docs/batches.md.

`page.py` writes a page from its studies. To add a study, write its module in one of the folders and
add a line to `registry.py`. The registry imports a study when it is asked for, so the folders do
not export their studies.
"""

from bssim.experiments.studies.page import save_figures, shown, verdict, write_page
from bssim.experiments.studies.registry import PAGES, chosen, study_names
from bssim.experiments.studies.runner import Finished, InterruptedStudyError, run_studies
from bssim.experiments.studies.study import Chapter, Claim, Study

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
