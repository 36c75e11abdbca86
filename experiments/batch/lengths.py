"""What is known about output lengths before a batch runs, and which lengths it may produce.

A batch file gives only caps. The output file of an earlier run gives lengths, and `learn` transfers
them to requests with the same prefix and a similar cap. That run may have served some of the same
requests (`same_requests`), or another batch file (`earlier_run`). A *scenario* is one possible
outcome: an output length for every request. Orders are compared in each scenario.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.lengths import KnownEstimator, OutputEstimates, OutputEstimator
from bssim.sim.workload import PrefixTree, Workload, flatten, from_token_ids
from bssim.sim.workload.readers import BatchFile, SourceText, objects, read_text, whole_number

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

    known: str | KnownEstimator
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

    def of_rows(self, rows: IntArray) -> "Lengths":
        """Return the lengths of some of the requests."""
        known = self.known
        if isinstance(known, KnownEstimator):
            mean, second = known.estimates.mean[rows], known.estimates.second_moment[rows]
            known = KnownEstimator(known.name, OutputEstimates(mean, second))
        scenarios = {name: outputs[rows] for name, outputs in self.scenarios.items()}
        return replace(self, known=known, scenarios=scenarios)


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


@dataclass(frozen=True, eq=False)
class EarlierRun:
    """The requests of a pool, then those that ran before, in one prefix tree."""

    tree: PrefixTree
    node: IntArray
    """Shape (all,): the node at which each prompt ends."""
    caps: IntArray
    """Shape (all,)."""
    ran: IntArray
    """Shape (all,): output tokens of each request that ran, 0 for the others."""
    origin: str
    """What ran, to show to the user."""


def same_requests(pool: Workload, seen: Mapping[str, int], origin: str) -> EarlierRun:
    """Return a run of some of the pool's own requests, found by ``custom_id``.

    Raises InputError if none of them ran.
    """
    ran = np.array([seen.get(pool.request_id(i), 0) for i in range(len(pool))], dtype=np.int64)
    if not ran.any():
        raise InputError(
            "--lengths",
            f"{len(seen):,} results in {origin}, none for a custom_id in {pool.name}",
            "the output file of an earlier run of some of these requests, or also that run's "
            "batch file (--lengths-batch)",
        )
    count = np.count_nonzero(ran)
    found = f"{origin}: {count:,} of {len(pool):,} requests ran before (same custom_id)"
    return EarlierRun(pool.tree, pool.node.astype(np.int64), pool.output_tokens, ran, found)


def earlier_run(
    pool: Workload, batch: BatchFile, earlier: BatchFile, seen: Mapping[str, int], origin: str
) -> EarlierRun:
    """Return a run of another batch file; its requests are related to the pool's by their prompts.

    Args:
        pool: Requests of ``batch``.
        batch: The batch file to plan, read with ``keep_prompts``.
        earlier: The batch file that ran, read with ``keep_prompts``.
        seen: Output tokens of that run, by ``custom_id``.
        origin: Name of the run, to show to the user.

    Raises InputError if none of the results belongs to ``earlier``.
    """
    assert batch.prompts is not None
    assert earlier.prompts is not None
    old = earlier.workload
    ran = np.array([seen.get(old.request_id(i), 0) for i in range(len(old))], dtype=np.int64)
    if not ran.any():
        raise InputError(
            "--lengths-batch",
            f"{earlier.path}: none of its custom_ids among the {len(seen):,} results of {origin}",
            "the batch file whose results are given by --lengths",
        )
    prompts = [batch.prompts[pool.request_id(i)] for i in range(len(pool))]
    prompts += [earlier.prompts[old.request_id(i)] for i in range(len(old))]
    tree, node = from_token_ids(*flatten(prompts))
    return EarlierRun(
        tree=tree,
        node=node.astype(np.int64),
        caps=np.concatenate((pool.output_tokens, old.output_tokens)),
        ran=np.concatenate((np.zeros(len(pool), dtype=np.int64), ran)),
        origin=f"{origin}: {np.count_nonzero(ran):,} requests of {earlier.path} ran before",
    )


def learn(
    pool: Workload,
    capped: npt.NDArray[np.bool_],
    run: EarlierRun,
    rng: np.random.Generator,
) -> Lengths:
    """Return the lengths of a batch file after an earlier run.

    A request that ran before is expected to have the same length again. Any other request takes
    the lengths, as shares of the cap, of the smallest prefix group around it in which `MIN_SEEN`
    requests with a similar cap (within a factor of two) ran. `PRIOR_REQUESTS` at the cap are added
    to each group. Without any such group, the request is expected to reach its cap.

    Args:
        pool: The requests; ``output_tokens`` are the caps.
        capped: Shape (n,): whether the request has its own cap.
        run: What ran before, from `same_requests` or `earlier_run`.
        rng: Draws the scenarios.
    """
    n = len(pool)
    caps = run.caps.astype(np.float64)
    ran = run.ran.astype(np.float64)
    groups = _groups(run)
    mean, second = groups.moments()
    mean, second = mean * caps, second * caps**2
    drawn = groups.draw(rng) * caps
    off = np.exp(rng.normal(0.0, GROUP_ERROR, groups.number.max() + 1))[groups.number]
    again = ran > 0
    mean[again], second[again], drawn[again] = ran[again], ran[again] ** 2, ran[again]
    mean, second = mean[:n], second[:n]
    most = np.where(capped, caps[:n], max(caps.max(), ran.max()))
    mean = np.clip(mean, 1.0, most)
    estimates = OutputEstimates(mean, np.clip(second, mean**2, most * mean))

    def whole(lengths: FloatArray) -> IntArray:
        return np.clip(np.rint(lengths[:n]), 1, most).astype(np.int64)

    return Lengths(
        known=KnownEstimator("history", estimates),
        at_run_time={},
        scenarios={
            "history": whole(drawn),
            "drift": whole(drawn * off),
            "caps": pool.output_tokens,
        },
        origin=run.origin,
    )


@dataclass(frozen=True, eq=False)
class _Groups:
    """The requests that ran in the group of each request: a slice of one sorted list."""

    shares: FloatArray
    """Shape (requests that ran,): output tokens as a share of the cap, sorted by cap, then node."""
    first: IntArray
    """Shape (all,): start of the slice."""
    count: IntArray
    """Shape (all,): its length, 0 if none ran in the group."""
    number: IntArray
    """Shape (all,): number of the group."""

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """Return mean and second moment of the share of the cap, with the prior."""

        def averages(values: FloatArray) -> FloatArray:
            sums = np.concatenate(([0.0], np.cumsum(values)))
            total: FloatArray = sums[self.first + self.count] - sums[self.first]
            return (total + PRIOR_REQUESTS) / (self.count + PRIOR_REQUESTS)

        return averages(self.shares), averages(self.shares**2)

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """Draw a share of the cap for every request from its group, or 1 if none ran there."""
        pick = self.first + np.floor(rng.random(len(self.first)) * self.count).astype(np.int64)
        pick = np.minimum(pick, len(self.shares) - 1)
        return np.where(self.count > 0, self.shares[pick], 1.0)


def _groups(run: EarlierRun) -> _Groups:
    """Find the group of every request.

    A group has caps within a factor of two, and is the smallest subtree around the request in which
    `MIN_SEEN` such requests ran; otherwise it is the whole tree. Nodes are numbered in preorder, so
    a subtree is a range of nodes.
    """
    size = np.ceil(np.log2(np.maximum(run.caps, 1))).astype(np.int64)
    rows = np.flatnonzero(run.ran > 0)
    rows = rows[np.lexsort((run.node[rows], size[rows]))]
    tree = run.tree
    parent, ends = tree.parent.tolist(), tree.subtree_end
    first, count, number = (np.zeros(len(size), dtype=np.int64) for _ in range(3))
    start = 0
    for group, cap in enumerate(np.unique(size).tolist()):
        here = size == cap
        nodes = run.node[rows[size[rows] == cap]]
        low = np.searchsorted(nodes, np.arange(tree.num_nodes))
        seen = np.searchsorted(nodes, ends) - low
        enough = (seen >= MIN_SEEN).tolist()
        around = list(range(tree.num_nodes))
        for v in range(1, tree.num_nodes):
            if not enough[v]:
                around[v] = around[parent[v]]
        subtree = np.asarray(around, dtype=np.int64)[run.node[here]]
        first[here], count[here] = start + low[subtree], seen[subtree]
        number[here] = group * tree.num_nodes + subtree
        start += len(nodes)
    shares = run.ran[rows] / run.caps[rows]
    return _Groups(shares, first, count, np.unique(number, return_inverse=True)[1])
