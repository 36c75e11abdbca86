"""A pool of requests as immutable columns."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.prefix_tree import (
    PrefixTree,
    canonical,
    depth_first_positions,
    first_request_below,
    infinite_cache_hits,
    requests_below,
)

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests as columns, one row per request, in pool order (the order of `fcfs`).

    Create one with :func:`make_workload`, a reader, or the functions of `synthesis` and `combine`.
    """

    name: str
    prompt_tokens: npt.NDArray[np.int64]
    """Shape (n,): prompt length, at least 1."""
    output_tokens: npt.NDArray[np.int64]
    """Shape (n,): true output length, at least 1; schedulers do not see it."""
    node: npt.NDArray[np.int32]
    """Shape (n,): deepest node of `tree` on the path of the prompt; ``depth <= prompt_tokens``."""
    tree: PrefixTree
    source: npt.NDArray[np.int16]
    """Shape (n,): index into `source_names`, the trace that the request came from."""
    source_names: tuple[str, ...]
    request_ids: Sequence[str] | None = None
    """One id per request; None means ``r0``, ``r1``, ... in pool order."""
    priority: npt.NDArray[np.int64] | None = None
    """Shape (n,): vLLM's priority, lower first; None means all 0."""
    arrival_s: npt.NDArray[np.float64] | None = None
    """Shape (n,): arrival time in the trace, in seconds; an offline pool ignores it."""
    max_tokens: npt.NDArray[np.int64] | None = None
    """Shape (n,): the user's cap on the output, if the file gives one."""
    notes: tuple[str, ...] = field(default=())
    """What a user must know about how the pool was made: caps, drops, fits, targets reached."""

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.prompt_tokens)

    def request_id(self, index: int) -> str:
        """Return the id of a request."""
        return self.request_ids[index] if self.request_ids is not None else f"r{index}"

    @cached_property
    def shared_tokens(self) -> npt.NDArray[np.int64]:
        """Shape (n,): prompt tokens on the tree; the rest of the prompt is private."""
        return self.tree.depth_tokens[self.node]

    @cached_property
    def max_cached_tokens(self) -> npt.NDArray[np.int64]:
        """Shape (n,): hits of a DFS order (children first-seen) with an infinite cache.

        Hits count single tokens and leave out the last prompt token, which is always computed. Pool
        order gives the same column, because the first request that visits a node is the same in
        both orders. Other orders may have a few more hits: see `most_hits`.
        """
        return infinite_cache_hits(self.tree, self.node, self.prompt_tokens)

    @cached_property
    def most_hits(self) -> int:
        """Cached prompt tokens of the best order with an infinite cache.

        They exceed the sum of `max_cached_tokens` by one token for every prompt that a longer one
        extends and precedes in the pool: the shorter prompt should run first, because its last
        token is computed in any case.
        """
        shortest_first = np.argsort(self.prompt_tokens, kind="stable")
        hits = infinite_cache_hits(self.tree, self.node, self.prompt_tokens, shortest_first)
        return int(hits.sum())

    @property
    def sharing_max(self) -> float:
        """Share of prompt tokens that the best order finds in an infinite cache."""
        return self.most_hits / int(self.prompt_tokens.sum())

    @cached_property
    def dfs_order(self) -> npt.NDArray[np.int64]:
        """Shape (n,): request indices in depth-first order of the tree, children first-seen."""
        _, position = depth_first_positions(self.tree.parent, self.node)
        order = np.empty(len(self), dtype=np.int64)
        order[position] = np.arange(len(self))
        return order

    @cached_property
    def requests_below(self) -> npt.NDArray[np.int64]:
        """Shape (nodes,): requests at or below each tree node."""
        return requests_below(self.tree.parent, self.node)

    @cached_property
    def sibling_ranks(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Shapes (nodes,) and (n,): the rank of each node and of each private tail below its node.

        Child nodes and private tails of a node are numbered together from 0, in first-seen order.
        The root, and requests without a private tail, have -1.
        """
        nodes = self.tree.num_nodes
        tails = np.flatnonzero(self.prompt_tokens > self.shared_tokens)
        seen = first_request_below(self.tree.parent, self.node)
        owner = np.concatenate((self.tree.parent[1:], self.node[tails]))
        by_owner = np.lexsort((np.concatenate((seen[1:], tails)), owner))
        first = np.searchsorted(owner[by_owner], owner[by_owner])
        rank = np.empty(len(owner), dtype=np.int64)
        rank[by_owner] = np.arange(len(owner)) - first
        request_rank = np.full(len(self), -1, dtype=np.int64)
        request_rank[tails] = rank[nodes - 1 :]
        return np.concatenate(([-1], rank[: nodes - 1])), request_rank

    def digest(self) -> str:
        """Return a SHA-256 of what a schedule depends on: lengths and tree, but no names."""
        sha = hashlib.sha256()
        columns = (
            (self.prompt_tokens, "<i8"),
            (self.output_tokens, "<i8"),
            (self.node, "<i4"),
            (self.tree.parent, "<i4"),
            (self.tree.segment_tokens, "<i8"),
        )
        for column, dtype in columns:
            sha.update(len(column).to_bytes(8, "little"))
            sha.update(np.ascontiguousarray(column, dtype=dtype).tobytes())
        return sha.hexdigest()


def make_workload(
    name: str,
    prompt_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    *,
    tree: PrefixTree | None = None,
    node: npt.ArrayLike | None = None,
    source: npt.ArrayLike | None = None,
    source_names: Sequence[str] | None = None,
    request_ids: Sequence[str] | None = None,
    priority: npt.ArrayLike | None = None,
    arrival_s: npt.ArrayLike | None = None,
    max_tokens: npt.ArrayLike | None = None,
    notes: Sequence[str] = (),
) -> Workload:
    """Check the columns, make the tree canonical, and return an immutable :class:`Workload`.

    The columns are those of :class:`Workload`. Without ``tree``, nothing is shared; without
    ``source``, all requests come from ``name``. Raises InputError naming the first bad row.
    """
    prompt = np.array(prompt_tokens, dtype=np.int64)
    n = len(prompt)
    if n == 0:
        raise InputError(f"workload {name!r}", "no requests", "at least one")

    def column(label: str, values: npt.ArrayLike, dtype: type[T]) -> npt.NDArray[T]:
        out = np.array(values, dtype=dtype)
        if out.shape != (n,):
            raise InputError.saying(
                f"workload {name!r}", f"{label} has shape {out.shape}", f"({n},)"
            )
        out.flags.writeable = False
        return out

    prompt.flags.writeable = False
    output = column("output_tokens", output_tokens, np.int64)
    for label, lengths in (("prompt_tokens", prompt), ("output_tokens", output)):
        if int(lengths.min()) < 1:
            row = int(np.argmax(lengths < 1))
            raise InputError(f"workload {name!r}: {label}[{row}]", lengths[row], "at least 1")
    raw = PrefixTree(np.array([-1], np.int32), np.zeros(1, np.int64)) if tree is None else tree
    hang = np.zeros(n, dtype=np.int32) if node is None else np.asarray(node)
    tree, hang = canonical(raw.parent, raw.segment_tokens, hang)
    over = tree.depth_tokens[hang] > prompt
    if over.any():
        row = int(np.argmax(over))
        raise InputError.saying(
            f"workload {name!r}",
            f"request {row} has {prompt[row]} prompt tokens",
            f"at least the {tree.depth_tokens[hang[row]]} tokens of its shared prefix",
        )
    for array in (tree.parent, tree.segment_tokens):
        array.flags.writeable = False
    names = (name,) if source_names is None else tuple(source_names)
    return Workload(
        name=name,
        prompt_tokens=prompt,
        output_tokens=output,
        node=column("node", hang, np.int32),
        tree=tree,
        source=column("source", np.zeros(n) if source is None else source, np.int16),
        source_names=names,
        request_ids=None if request_ids is None else tuple(request_ids),
        priority=None if priority is None else column("priority", priority, np.int64),
        arrival_s=None if arrival_s is None else column("arrival_s", arrival_s, np.float64),
        max_tokens=None if max_tokens is None else column("max_tokens", max_tokens, np.int64),
        notes=tuple(notes),
    )
