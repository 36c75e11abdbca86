"""What is known about output lengths before a batch runs, and which lengths it may produce.

A batch file gives only caps. The output file of an earlier run of some or all of the requests gives
lengths, and `learn` transfers them to requests with the same prefix and a similar cap. A *scenario*
is one possible outcome: an output length for every request. Orders are compared in each scenario.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.lengths import KnownEstimator, OutputEstimates, OutputEstimator
from bssim.sim.workload.readers.json_lines import objects, whole_number
from bssim.sim.workload.readers.source_text import SourceText, read_text
from bssim.sim.workload.workload import Workload

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_SEEN = 20
"""A prefix group with fewer known lengths than this uses those of the group around it."""
PRIOR_REQUESTS = 1.0
"""Weight of the prior, as a number of additional requests that reach their cap."""
GROUP_ERROR = 0.25
"""Standard deviation of a whole group's error in another run, on the logarithm of the length."""


@dataclass(frozen=True, eq=False)
class Lengths:
    """What schedulers may know, and the possible outcomes."""

    known: str | OutputEstimator
    """What an order is based on if it is made before the batch runs."""
    at_run_time: Mapping[str, str]
    """By scheduler: the estimator for decisions at run time, if it is a different one."""
    scenarios: Mapping[str, IntArray]
    """By name: an output length for every request, shape (n,). The first one is the main one."""
    origin: str
    """A short text: where the knowledge comes from."""

    @property
    def main(self) -> str:
        """The scenario for which times are reported."""
        return next(iter(self.scenarios))

    def knowledge(self, scheduler: str) -> str | OutputEstimator:
        """Return what a scheduler knows at run time."""
        return self.at_run_time.get(scheduler, self.known)


def from_caps(pool: Workload, rng: np.random.Generator) -> Lengths:
    """Return the lengths of a batch file if only its caps are known.

    Scenarios: ``caps``: every request reaches its cap. ``half``: the length is uniform up to the
    cap. ``short``: the logarithm of the length is uniform, so most outputs are far below their
    cap. At run time, `ratio` and `blendserve` learn from a sample that runs first.
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
        origin="each request's own cap; no earlier run given (--lengths)",
    )


def from_workload(pool: Workload) -> Lengths:
    """Return the lengths that a trace recorded; schedulers see only a sample of them."""
    return Lengths(
        known="sampled",
        at_run_time={"ratio": "survival"},
        scenarios={"trace": pool.output_tokens},
        origin="the trace; schedulers see the lengths of a sample",
    )


def read_output_lengths(path: str | Path) -> dict[str, int]:
    """Return the output tokens of each successful request in a batch output file, by ``custom_id``.

    Raises InputError naming file and line if it is not a batch output file.
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
    """Return the lengths of a batch file if some of its requests ran before.

    A request that ran before is expected to have the same length again. Any other request takes
    the lengths, as shares of the cap, of the smallest prefix group around it in which `MIN_SEEN`
    requests with a similar cap (within a factor of two) ran. `PRIOR_REQUESTS` at the cap are added
    to each group. Without any such group, the request is expected to reach its cap.

    Args:
        pool: The requests; ``output_tokens`` are the caps.
        capped: Shape (n,): whether the request has its own cap.
        seen: Output tokens of the earlier run, by ``custom_id``.
        origin: Name of the earlier run, to show to the user.
        rng: Draws the scenarios.

    Raises InputError if no request of the pool ran before.
    """
    caps = pool.output_tokens.astype(np.float64)
    ran = np.array([seen.get(pool.request_id(i), 0) for i in range(len(pool))], dtype=np.float64)
    rows = np.flatnonzero(ran > 0)
    if not len(rows):
        raise InputError(
            "--lengths",
            f"{len(seen):,} results in {origin}, none for a custom_id in {pool.name}",
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
    """Return the group of every request: same prefix, and caps within a factor of two."""
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
    """Draw a share of the cap for every request from those seen in its group, or 1 if none."""
    order = np.argsort(group[rows], kind="stable")
    sizes = np.bincount(group[rows], minlength=int(group.max()) + 1)
    first = np.cumsum(sizes) - sizes
    pick = first[group] + np.floor(rng.random(len(group)) * sizes[group]).astype(np.int64)
    pick = np.minimum(pick, len(rows) - 1)
    return np.where(sizes[group] > 0, share[order][pick], 1.0)
