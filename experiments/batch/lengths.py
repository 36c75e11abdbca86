"""What is known of output lengths before a batch runs, and the lengths it may turn out to have.

A batch file holds caps. The output file of an earlier run of the same requests, or of some of
them, holds lengths: `learn` spreads these over requests of the same prefix and a like cap. A
*scenario* is one outcome, an output length for every request, that an order has to stand up to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.lengths.estimators import KnownEstimator, OutputEstimates, OutputEstimator
from bssim.sim.workload.readers.json_lines import objects, whole_number
from bssim.sim.workload.readers.source_text import SourceText, read_text
from bssim.sim.workload.workload import Workload

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_SEEN = 20
"""Requests with known lengths that a prefix group needs to speak for itself."""
PRIOR_REQUESTS = 1.0
"""Requests at their cap that are counted beside the ones whose lengths are known."""
GROUP_ERROR = 0.25
"""Standard deviation of the logarithm by which a whole group may be off in another run."""


@dataclass(frozen=True, eq=False)
class Lengths:
    """What schedulers may know, and what may happen."""

    known: str | OutputEstimator
    """What an order is made with before the batch runs."""
    at_run_time: Mapping[str, str]
    """What a scheduler goes by that decides while the batch runs, where that is another."""
    scenarios: Mapping[str, IntArray]
    """Name -> an output length for every request, shape (n,); the first is the main one."""
    origin: str
    """In a few words, where the knowledge comes from."""

    @property
    def main(self) -> str:
        """The scenario that times are given for."""
        return next(iter(self.scenarios))

    def knowledge(self, scheduler: str) -> str | OutputEstimator:
        """Return what a scheduler knows at run time."""
        return self.at_run_time.get(scheduler, self.known)


def from_caps(pool: Workload, rng: np.random.Generator) -> Lengths:
    """Return the lengths of a batch file about which nothing but its caps is known.

    ``caps``: every request generates all that it may. ``half``: any length up to its cap is as
    likely as any other. ``short``: the same of the logarithm of the length, so that most outputs
    are far below their cap. `ratio` and `blendserve` learn at run time from a sample that runs
    first.
    """
    caps = pool.output_tokens
    n = len(pool)
    half = 1 + np.floor(rng.random(n) * caps).astype(np.int64)
    short = np.rint(np.exp(rng.random(n) * np.log(np.maximum(caps, 1)))).astype(np.int64)
    return Lengths(
        known="max_tokens",
        at_run_time={"ratio": "survival", "blendserve": "sampled"},
        scenarios={
            "caps": caps,
            "half": np.clip(half, 1, caps),
            "short": np.clip(short, 1, caps),
        },
        origin="each request's own cap; no lengths of an earlier run (--lengths)",
    )


def from_workload(pool: Workload) -> Lengths:
    """Return the lengths of a trace: what happened; schedulers see a sample of it."""
    return Lengths(
        known="sampled",
        at_run_time={"ratio": "survival"},
        scenarios={"trace": pool.output_tokens},
        origin="the trace; schedulers see the lengths of a sample",
    )


def read_output_lengths(path: str | Path) -> dict[str, int]:
    """Return output tokens by ``custom_id`` of the requests that succeeded in a batch output file.

    Raises InputError naming file and line for a file of another kind.
    """
    file = Path(path)
    source = SourceText(path=str(path), name=file.stem, text=read_text(file))
    lengths: dict[str, int] = {}
    for line, row in objects(source):
        response = row.get("response")
        if "custom_id" not in row or not isinstance(response, dict | None):
            raise source.error(line, "response", response, "a line of a batch output file")
        if response is None or row.get("error") or response.get("status_code", 200) != 200:
            continue
        body = response.get("body")
        usage = body.get("usage") if isinstance(body, dict) else None
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if tokens is None:
            field, expected = "response.body.usage", "an object with completion_tokens"
            raise source.error(line, field, usage, expected)
        field = "response.body.usage.completion_tokens"
        lengths[str(row["custom_id"])] = whole_number(source, line, field, tokens)
    return lengths


def learn(
    pool: Workload,
    capped: npt.NDArray[np.bool_],
    seen: Mapping[str, int],
    origin: str,
    rng: np.random.Generator,
) -> Lengths:
    """Return the lengths of a batch file some of whose requests ran before.

    A request that ran before is expected to be as long again. Any other takes the lengths of the
    smallest prefix group around it in which `MIN_SEEN` requests with a like cap (within a factor of
    two) ran, as shares of the cap, beside `PRIOR_REQUESTS` at the cap; where nobody ran, it is
    expected to reach its cap.

    Args:
        pool: The requests; ``output_tokens`` are the caps.
        capped: Shape (n,): does the request have a cap of its own?
        seen: Output tokens by id.
        origin: Where they come from, for the user.
        rng: Draws the scenarios.

    Raises InputError if no request of the pool ran before.
    """
    caps = pool.output_tokens.astype(np.float64)
    ran = np.array([seen.get(pool.request_id(i), 0) for i in range(len(pool))], dtype=np.float64)
    rows = np.flatnonzero(ran > 0)
    if not len(rows):
        raise InputError(
            "--lengths",
            f"{len(seen):,} results in {origin}, none for a custom_id of {pool.name}",
            "the output file of an earlier run of some of these requests",
        )
    share = ran[rows] / caps[rows]
    group = _groups(pool, rows)
    count = np.bincount(group[rows], minlength=group.max() + 1) + PRIOR_REQUESTS
    total = np.bincount(group[rows], share, len(count)) + PRIOR_REQUESTS
    squares = np.bincount(group[rows], share**2, len(count)) + PRIOR_REQUESTS
    mean, second = (total / count)[group] * caps, (squares / count)[group] * caps**2
    mean[rows], second[rows] = ran[rows], ran[rows] ** 2
    most = np.where(capped, caps, max(caps.max(), ran.max()))
    mean = np.clip(mean, 1.0, most)
    estimates = OutputEstimates(mean, np.clip(second, mean**2, most * mean))

    drawn = _drawn(group, rows, share, rng) * caps
    drawn[rows] = ran[rows]
    off = np.exp(rng.normal(0.0, GROUP_ERROR, len(count)))[group]

    def whole(lengths: FloatArray) -> IntArray:
        return np.clip(np.rint(lengths), 1, most).astype(np.int64)

    return Lengths(
        known=KnownEstimator("history", estimates),
        at_run_time={},
        scenarios={
            "history": whole(drawn),
            "drift": whole(drawn * off),
            "caps": pool.output_tokens,
        },
        origin=f"{origin}: {len(rows):,} of {len(pool):,} requests ran before",
    )


def _groups(pool: Workload, rows: IntArray) -> IntArray:
    """Return the group of every request: a prefix and caps within a factor of two."""
    size = np.ceil(np.log2(np.maximum(pool.output_tokens, 1))).astype(np.int64)
    group = np.full(len(pool), -1, dtype=np.int64)
    ran = np.zeros(len(pool), np.bool_)
    ran[rows] = True
    tree, used = pool.tree, 0
    parent = tree.parent.tolist()
    for cap in np.unique(size).tolist():
        here = size == cap
        counts = np.bincount(pool.node[here & ran], minlength=tree.num_nodes).tolist()
        speaks = [True] * tree.num_nodes
        for v in range(tree.num_nodes - 1, 0, -1):
            speaks[v] = counts[v] >= MIN_SEEN
            if not speaks[v]:
                counts[parent[v]] += counts[v]
        speaker = list(range(tree.num_nodes))
        for v in range(1, tree.num_nodes):
            if not speaks[v]:
                speaker[v] = speaker[parent[v]]
        group[here] = used + np.asarray(speaker, dtype=np.int64)[pool.node[here]]
        used += tree.num_nodes
    return np.asarray(np.unique(group, return_inverse=True)[1], dtype=np.int64)


def _drawn(
    group: IntArray, rows: IntArray, share: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Return a share of the cap for every request, drawn from those seen in its group, else 1."""
    order = np.argsort(group[rows], kind="stable")
    sizes = np.bincount(group[rows], minlength=int(group.max()) + 1)
    first = np.cumsum(sizes) - sizes
    pick = first[group] + np.floor(rng.random(len(group)) * sizes[group]).astype(np.int64)
    pick = np.minimum(pick, len(rows) - 1)
    return np.where(sizes[group] > 0, share[order][pick], 1.0)
