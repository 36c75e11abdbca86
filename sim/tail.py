"""The tail of a run: a few long requests at its end, which leave most of the GPU idle."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bssim.sim.cluster import Replica
from bssim.sim.result import Tail

TAIL_REQUESTS = 0.1
"""The tail begins when this share of the requests that ran at the last admission are left."""


def find_tail(
    replicas: Iterable[Replica], finish_s: npt.NDArray[np.float64], output: npt.NDArray[np.int64]
) -> Tail:
    """Return the tail of a run.

    After the last admission no request waits, and each running request gets a token per step. The
    tail begins when a tenth of the requests that were unfinished at that time are left, rounded
    down but at least one. A run whose last request is admitted when no other is left has no tail.

    ``finish_s`` and ``output`` have shape (n,): when each request finished, and its output tokens.
    """
    ran = [(replica.core, replica.end_s) for replica in replicas if replica.core.completed]
    last_s = max(
        float(end_s[core.last_admission - 1]) if core.last_admission else 0.0 for core, end_s in ran
    )
    by_end = np.sort(finish_s)
    left = len(by_end) - int(np.searchsorted(by_end, last_s, side="right"))
    few = max(1, int(left * TAIL_REQUESTS)) if left > 1 else 0
    start_s = float(by_end[len(by_end) - few - 1])
    tokens = 0
    for core, end_s in ran:
        first = int(np.searchsorted(end_s, start_s, side="right"))
        steps = np.asarray(core.finish_step) - first + 1
        tokens += int(np.clip(steps, 0, output[core.completed]).sum())
    return Tail(start_s, int((by_end > start_s).sum()), tokens)
