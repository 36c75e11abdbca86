"""Build a prefix tree from token ids, from hashes of token blocks, or from group labels.

Each function returns ``(tree, node)``: the canonical :class:`PrefixTree` and the node of each
prompt, shape (n,).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.prefix_tree import Int32Array, Int64Array, PrefixTree, canonical


def flatten(
    sequences: Sequence[npt.NDArray[np.integer] | Sequence[int]],
) -> tuple[npt.NDArray[np.integer], Int64Array]:
    """Return all sequences end to end, and the start of each, shape (n + 1,)."""
    rows = [np.asarray(s, dtype=None if len(s) else np.int32) for s in sequences]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(r) for r in rows], out=offsets[1:])
    return np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32), offsets


def from_token_ids(
    token_ids: npt.ArrayLike, offsets: npt.ArrayLike
) -> tuple[PrefixTree, Int32Array]:
    """Build the tree of token-id prompts: prompt i is ``token_ids[offsets[i]:offsets[i + 1]]``.

    Sort the prompts as big-endian bytes, find the common prefixes of neighbours, and join them in
    one pass with a stack. Except for the sort, this is linear in the tokens. Raises InputError for
    an id that is negative or needs more than 31 bits.
    """
    ids, starts = _as_ids(token_ids), np.asarray(offsets, dtype=np.int64)
    order = _sort_sequences(ids, starts)
    return _from_neighbours(_neighbour_prefixes(ids, starts, order), order)


def from_block_hashes(
    hash_ids: npt.ArrayLike,
    offsets: npt.ArrayLike,
    *,
    block_tokens: int,
    prompt_tokens: npt.ArrayLike,
) -> tuple[PrefixTree, Int32Array]:
    """Build the tree of prompts that are given as one hash per block of ``block_tokens`` tokens.

    Prompt i has the blocks ``hash_ids[offsets[i]:offsets[i + 1]]`` and ``prompt_tokens[i]`` tokens;
    its last block may be partial. Equal leading blocks are shared. A shared partial block has the
    tokens of the shorter prompt. Hashes are any 64-bit integers.
    """
    # Only equality of hashes matters, so replace them by small integers.
    ids = np.unique(np.asarray(hash_ids), return_inverse=True)[1].astype(np.int32)
    starts = np.asarray(offsets, dtype=np.int64)
    prompt = np.asarray(prompt_tokens, dtype=np.int64)
    order = _sort_sequences(ids, starts)
    shared = _neighbour_prefixes(ids, starts, order) * block_tokens
    if len(order):
        lengths = prompt[order]
        shared[1:] = np.minimum(shared[1:], np.minimum(lengths[1:], lengths[:-1]))
    return _from_neighbours(shared, order)


def from_groups(
    group: npt.ArrayLike,
    shared_tokens: npt.ArrayLike,
    *,
    parent_group: npt.ArrayLike | None = None,
) -> tuple[PrefixTree, Int32Array]:
    """Build the tree of prompts in groups, where each group shares a prefix.

    Args:
        group: shape (n,), the group of each prompt, -1 for none.
        shared_tokens: shape (groups,), tokens that group g shares beyond those of its parent.
        parent_group: shape (groups,), the enclosing group, -1 for none; less than g.
    """
    tokens = np.asarray(shared_tokens, dtype=np.int64)
    enclosing = (
        np.full(len(tokens), -1) if parent_group is None else np.asarray(parent_group, np.int64)
    )
    if np.any(enclosing >= np.arange(len(tokens))):
        g = int(np.argmax(enclosing >= np.arange(len(tokens))))
        raise InputError(f"parent_group[{g}]", enclosing[g], f"a group before {g}")
    return canonical(
        np.concatenate(([-1], enclosing + 1)),
        np.concatenate(([0], tokens)),
        np.asarray(group, dtype=np.int64) + 1,
    )


def _as_ids(values: npt.ArrayLike) -> Int32Array:
    ids = np.asarray(values)
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) > np.iinfo(np.int32).max):
        raise InputError("token ids", f"{ids.min()}..{ids.max()}", "0..2147483647")
    return ids.astype(np.int32, copy=False)


def _sort_sequences(ids: Int32Array, offsets: Int64Array) -> Int64Array:
    """Return the lexicographic order of the sequences; big-endian bytes sort like the ids."""
    keys = [ids[a:b].astype(">i4").tobytes() for a, b in pairwise(offsets.tolist())]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return np.asarray(order, dtype=np.int64)


def _neighbour_prefixes(ids: Int32Array, offsets: Int64Array, order: Int64Array) -> Int64Array:
    """Return how many leading ids each sequence shares with the one before it in ``order``.

    The first sequence has 0.
    """
    starts, lengths = offsets[order].tolist(), np.diff(offsets)[order].tolist()
    shared = [0] * len(starts)
    for i in range(1, len(starts)):
        a, b = starts[i - 1], starts[i]
        m = min(lengths[i - 1], lengths[i])
        if m == 0:
            continue
        differs = ids[a : a + m] != ids[b : b + m]
        k = int(differs.argmax())
        shared[i] = k if differs[k] else m
    return np.asarray(shared, dtype=np.int64)


def _from_neighbours(shared: Int64Array, order: Int64Array) -> tuple[PrefixTree, Int32Array]:
    """Build the tree of sorted prompts; each shares ``shared`` tokens with the one before it.

    The stack holds the nodes on the path of the last prompt, shallowest first.
    """
    depth, parent = [0], [-1]
    stack = [0]
    node = [0] * len(order)
    for i, tokens in enumerate(shared.tolist()):
        last = -1
        while depth[stack[-1]] > tokens:
            last = stack.pop()
        if depth[stack[-1]] < tokens:
            new = len(depth)
            depth.append(tokens)
            parent.append(stack[-1])
            if last >= 0:
                parent[last] = new
            else:
                node[i - 1] = new
            stack.append(new)
        node[i] = stack[-1]
    # A node that splits an edge is newer than its child; sort by depth to put parents first.
    by_depth = np.argsort(depth, kind="stable")
    number = np.empty(len(depth), dtype=np.int64)
    number[by_depth] = np.arange(len(depth))
    up = np.concatenate(([-1], number[np.asarray(parent)[by_depth[1:]]]))
    deep = np.asarray(depth, dtype=np.int64)[by_depth]
    segment = deep.copy()
    segment[1:] -= deep[up[1:]]
    hang = np.empty(len(order), dtype=np.int64)
    hang[order] = number[np.asarray(node, dtype=np.int64)]
    return canonical(up, segment, hang)
