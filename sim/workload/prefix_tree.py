"""A compressed trie of shared prompt prefixes, as arrays: how the simulator represents prompts.

Only shared prefixes are nodes. A request is attached to the deepest node on its path; the rest of
its prompt is its private tail, of which only the length is known. So 400,000 requests with few
shared prefixes are a tree of a few nodes and two integer columns, not 400,000 lists of tokens.

*Below* a node are its child nodes and the requests that are attached to it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """A trie over prompt prefixes; node 0 is the root (the empty prefix).

    The tree is canonical: every other node has at least one token and at least two requests at or
    below it, and is not the only thing below its parent unless the parent is the root. Nodes are
    numbered in depth-first preorder. Children are in first-seen order, that is, by the smallest
    request index below them. So equal pools have equal arrays, and a subtree is a range of node
    numbers. :func:`canonical` brings a tree into this form.
    """

    parent: Int32Array
    """Shape (nodes,): parent of each node, -1 for the root; ``parent[v] < v``."""
    segment_tokens: Int64Array
    """Shape (nodes,): tokens between the parent and the node; 0 for the root only."""

    @property
    def num_nodes(self) -> int:
        """Number of nodes, including the root."""
        return len(self.parent)

    @cached_property
    def depth_tokens(self) -> Int64Array:
        """Shape (nodes,): tokens from the root to the end of the node's segment."""
        depth = self.segment_tokens.tolist()
        parent = self.parent.tolist()
        for v in range(1, self.num_nodes):
            depth[v] += depth[parent[v]]
        return np.asarray(depth, dtype=np.int64)

    @cached_property
    def subtree_end(self) -> Int64Array:
        """Shape (nodes,): one past the last node of each subtree, which starts at its node."""
        end = list(range(1, self.num_nodes + 1))
        parent = self.parent.tolist()
        for v in range(self.num_nodes - 1, 0, -1):
            end[parent[v]] = max(end[parent[v]], end[v])
        return np.asarray(end, dtype=np.int64)

    @cached_property
    def level(self) -> Int32Array:
        """Shape (nodes,): edges from the root."""
        level = [0] * self.num_nodes
        parent = self.parent.tolist()
        for v in range(1, self.num_nodes):
            level[v] = level[parent[v]] + 1
        return np.asarray(level, dtype=np.int32)

    @cached_property
    def levels(self) -> list[tuple[Int64Array, Int32Array]]:
        """Nodes and their parents, level by level below the root, for vectorised sums on paths."""
        by_level = np.argsort(self.level, kind="stable")
        first = np.flatnonzero(np.diff(self.level[by_level])) + 1
        return [(nodes, self.parent[nodes]) for nodes in np.split(by_level, first)[1:]]

    def path(self, node: int) -> list[int]:
        """Return the nodes on the path from the root to ``node``, without the root."""
        nodes = []
        while node > 0:
            nodes.append(node)
            node = int(self.parent[node])
        return nodes[::-1]


def requests_below(parent: Int32Array, node: Int32Array) -> Int64Array:
    """Return the number of requests at or below each node, shape (nodes,).

    ``node``, shape (n,), is the node of each request.
    """
    below = np.bincount(node, minlength=len(parent)).tolist()
    up = parent.tolist()
    for v in range(len(up) - 1, 0, -1):
        below[up[v]] += below[v]
    return np.asarray(below, dtype=np.int64)


def first_request_below(
    parent: Int32Array, node: Int32Array, rank: Int64Array | None = None
) -> Int64Array:
    """Return the smallest rank of the requests at or below each node, shape (nodes,).

    ``rank``, shape (n,), defaults to the request index. A node without requests has ``len(node)``.
    """
    first = np.full(len(parent), len(node), dtype=np.int64)
    np.minimum.at(first, node, np.arange(len(node)) if rank is None else rank)
    out = first.tolist()
    up = parent.tolist()
    for v in range(len(up) - 1, 0, -1):
        if out[v] < out[up[v]]:
            out[up[v]] = out[v]
    return np.asarray(out, dtype=np.int64)


def depth_first_positions(
    parent: Int32Array,
    node: Int32Array,
    *,
    node_key: npt.NDArray[np.generic] | None = None,
    request_key: npt.NDArray[np.generic] | None = None,
) -> tuple[Int64Array, Int64Array]:
    """Put all requests in depth-first order.

    Return the first position below each node, shape (nodes,), and the position of each request,
    shape (n,). What is below a node is visited in ascending order of its key. Give both keys or
    neither. Ties, and everything without keys, are in first-seen order (by the smallest request
    index).
    """
    num_nodes, n = len(parent), len(node)
    owner = np.concatenate((parent[1:], node))
    seen = np.concatenate((first_request_below(parent, node)[1:], np.arange(n)))
    size = np.concatenate((requests_below(parent, node)[1:], np.ones(n, dtype=np.int64)))
    if node_key is None or request_key is None:
        by_owner = np.lexsort((seen, owner))
    else:
        by_owner = np.lexsort((seen, np.concatenate((node_key[1:], request_key)), owner))
    # Requests before each thing with the same owner: an exclusive sum within each group.
    before = np.cumsum(size[by_owner]) - size[by_owner]
    owners = owner[by_owner]
    group_start = np.searchsorted(owners, np.arange(num_nodes))
    offset = np.empty(len(owner), dtype=np.int64)
    offset[by_owner] = before - before[np.minimum(group_start, len(owner) - 1)][owners]
    start = [0, *offset[: num_nodes - 1].tolist()]
    up = parent.tolist()
    for v in range(1, num_nodes):
        start[v] += start[up[v]]
    node_start = np.asarray(start, dtype=np.int64)
    return node_start, node_start[node] + offset[num_nodes - 1 :]


def canonical(
    parent: npt.ArrayLike, segment_tokens: npt.ArrayLike, node: npt.ArrayLike
) -> tuple[PrefixTree, Int32Array]:
    """Bring any trie to canonical form; return the tree and the node of each request, shape (n,).

    The arrays are as in :class:`PrefixTree`, but only need parents before children. Empty segments,
    unused nodes and chains are removed, and their requests are attached to other nodes.
    """
    up = np.asarray(parent, dtype=np.int32)
    segment = np.asarray(segment_tokens, dtype=np.int64)
    hang = np.asarray(node, dtype=np.int32)
    num_nodes = len(up)
    raw = PrefixTree(up, segment)
    root = np.arange(num_nodes) == 0

    # 1. Remove nodes with fewer than two requests (private) and nodes without tokens.
    keep = root | ((requests_below(up, hang) >= 2) & (segment > 0))
    hang = _nearest_kept(up, keep)[hang]
    # 2. A kept node with one thing below it is part of a chain; its only child absorbs it.
    kept = np.flatnonzero(keep)
    above = _nearest_kept(up, keep)[up[kept[1:]]]
    things = np.bincount(hang, minlength=num_nodes) + np.bincount(above, minlength=num_nodes)
    keep &= root | (things != 1)
    # 3. Renumber in depth-first preorder; `kept` has parents first, so a stable sort is correct.
    kept = np.flatnonzero(keep)
    above = _nearest_kept(up, keep)[up[kept[1:]]]
    number = np.zeros(num_nodes, dtype=np.int32)
    number[kept] = np.arange(len(kept))
    up = np.concatenate(([-1], number[above])).astype(np.int32)
    depth = raw.depth_tokens[kept]
    hang = number[hang]
    if len(hang):
        start, _ = depth_first_positions(up, hang)
        preorder = np.argsort(start, kind="stable")
        number = np.empty(len(kept), dtype=np.int32)
        number[preorder] = np.arange(len(kept))
        up = np.concatenate(([-1], number[up[preorder[1:]]])).astype(np.int32)
        depth, hang = depth[preorder], number[hang]
    segment = depth.copy()
    segment[1:] -= depth[up[1:]]
    return PrefixTree(up, segment), hang


def _nearest_kept(parent: Int32Array, keep: npt.NDArray[np.bool_]) -> Int32Array:
    """Return the node itself if kept, else its nearest kept ancestor; the root is always kept."""
    nearest = list(range(len(parent)))
    up = parent.tolist()
    for v in np.flatnonzero(~keep).tolist():
        nearest[v] = nearest[up[v]]
    return np.asarray(nearest, dtype=np.int32)


def infinite_cache_hits(
    tree: PrefixTree,
    node: Int32Array,
    prompt_tokens: Int64Array,
    order: Int64Array | None = None,
) -> Int64Array:
    """Return the cached prompt tokens of each request if nothing is ever evicted, shape (n,).

    Requests run one after another in ``order`` (None: pool order), and each is fully cached before
    the next one starts. A hit is the longest prefix shared with any earlier request, counted in
    single tokens, and at most ``prompt_tokens - 1``, because the last prompt token is always
    computed. Apart from this limit, the total is the same for every order. A prompt that is a
    prefix of others loses one token if it runs after them, so sorting by rising prompt length gives
    the most hits.
    """
    n = len(node)
    rank = np.arange(n)
    if order is not None:
        rank = np.empty(n, dtype=np.int64)
        rank[order] = np.arange(n)
    first = first_request_below(tree.parent, node, rank)
    # Climb from the node of each request to the deepest node that an earlier request visited. Only
    # the first visitor of a node climbs past it, so the loop is linear in nodes + requests.
    at = node.copy()
    active = np.arange(n)
    while len(active):
        active = active[(first[at[active]] == rank[active]) & (at[active] > 0)]
        at[active] = tree.parent[at[active]]
    return np.minimum(tree.depth_tokens[at], prompt_tokens - 1)
