"""Orders on everyday batch files: what ``plan --scheduler auto`` and `ratio` are worth there."""

from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd
from joblib import Parallel, delayed

from bssim.experiments.result_pages.batches.kinds import KINDS
from bssim.experiments.result_pages.batches.measure import Measured, measure
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import frame_table
from bssim.experiments.sweeps import Results

ENGINES = ("vllm", "sglang", "nanoflow")
NUM_REQUESTS = 1000
HELD_OUT_SEED = 1
"""Seed 0 made the files on which `compare` was developed."""
BEHIND = 0.01
"""How much longer an order may take than the better of the file's own order and depth-first."""

WHERE_THEY_LOSE = """

Where they lose:

- `auto` knows only the caps. Where outputs are far below their caps, another order can turn out to
  be the fastest. In simulation with the lengths that it was given, `auto` never loses; the lengths
  of an earlier run (`--lengths`) bring the two together.
- A file of 1,000 requests ends with a few long outputs that run almost alone. Which of them starts
  last decides several percent on translation, long reasoning and the mix, for every order.
- On a file of at most 5,000 requests `ratio` is the best of five orders in simulation, with
  output lengths that agree with the caps. Which of two orders starts the longest output earlier is
  chance if all caps are equal (extraction, long reasoning): no choice made before the run knows it.
"""


class Batches:
    """Twelve kinds of batch files under three engines."""

    name = "batches"
    title = "Everyday batch files"

    def __init__(
        self,
        kinds: Sequence[str] = tuple(KINDS),
        engines: Sequence[str] = ENGINES,
        num_requests: int = NUM_REQUESTS,
        jobs: int = 2,
    ) -> None:
        """``num_requests``: requests of each file."""
        self.kinds, self.engines = kinds, engines
        self.num_requests, self.jobs = num_requests, jobs

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return nothing: the files are generated."""
        return ()

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """Return the time of each order over the better of fcfs and dfs, per file and engine."""
        tasks = list(product(self.engines, self.kinds))
        measured: list[Measured] = Parallel(n_jobs=self.jobs)(
            delayed(measure)(kind, engine, self.num_requests, HELD_OUT_SEED)
            for engine, kind in tasks
        )
        tables, claims = [], []
        for engine in self.engines:
            rows = [one for one in measured if one.engine == engine]
            tables.append(f"On `{engine}`:\n\n{_table(rows)}")
            claims += _claims(engine, rows)
        text = (
            f"Batch files of {self.num_requests:,} requests, generated from stated lengths "
            f"(`experiments/result_pages/batches/kinds.py`) with seed {HELD_OUT_SEED}; only "
            "seed 0 was used in development. llama-3-8b on one A100-80GB, `roofline`. The "
            "order of `auto` is chosen by the caps alone, as `bssim plan` does, and all orders are "
            "then run with the lengths that the outputs turn out to have. `ratio` admits at run "
            "time and learns lengths from a sample that runs first. Numbers are speed-ups over "
            "the file's own order.\n\n" + "\n\n".join(tables) + WHERE_THEY_LOSE
        )
        return Chapter(claims, text)


def _table(rows: Sequence[Measured]) -> str:
    table = pd.DataFrame(
        {
            "sharing (largest)": [f"{one.sharing_max:.0%}" for one in rows],
            "own order (s)": [f"{one.fcfs_s:,.0f}" for one in rows],
            "dfs": [f"{one.fcfs_s / one.dfs_s:.3f}" for one in rows],
            "auto": [f"{one.fcfs_s / one.auto_s:.3f} ({one.auto})" for one in rows],
            "ratio, run time": [f"{one.fcfs_s / one.ratio_s:.3f}" for one in rows],
        },
        index=pd.Index([one.kind.replace("_", " ") for one in rows], name="file"),
    )
    return frame_table(table, str)


def _claims(engine: str, rows: Sequence[Measured]) -> list[Claim]:
    """Return the most that `auto` and `ratio` fall behind, beside the aims."""
    claims = []
    for name, allowed in (("auto", 0.0), ("ratio", BEHIND)):
        behind = {one.kind: getattr(one, f"{name}_s") / one.best_s - 1 for one in rows}
        worst = max(behind, key=behind.__getitem__)
        late = [kind for kind, share in behind.items() if share > BEHIND]
        note = f"worst on {worst}" + (f"; more than 1 % on {', '.join(late)}" if late else "")
        claims.append(
            Claim(
                id=f"batches.{engine}.{name}",
                what=(
                    f"most time that {name} takes beyond the better of fcfs and dfs, {engine}, "
                    f"{len(rows)} files, %"
                ),
                paper=100 * allowed,
                ours=100 * behind[worst],
                note=note,
                holds=behind[worst] <= BEHIND,
            )
        )
    return claims


BATCHES = Batches()
