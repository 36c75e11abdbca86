"""Token ids for a real replay, made from the prefix tree.

A node's tokens come from a generator seeded with (seed, node), a request's private tail from one
seeded with (seed, request), so any trace, even one of lengths only, replays with its own sharing.
What lies under one node starts with different tokens, so that nothing more is shared by chance.
"""

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.workload import Workload

_FIRST_ID = 3
"""Ids below are left to padding, beginning and end of text, where most vocabularies have them."""
_SMALLEST_VOCAB = 16


def exact_vocab_size(workload: Workload) -> int:
    """Return the smallest vocabulary with which the ids share exactly what the tree shares.

    With it, everything under a node can start with an id of its own. With a smaller one, siblings
    are numbered over several leading ids and some share all but the last of them.
    """
    node_rank, request_rank = workload.sibling_ranks
    most = max(int(node_rank.max()), int(request_rank.max())) + 1
    return max(_SMALLEST_VOCAB, _FIRST_ID + most)


def prompt_token_ids(
    workload: Workload, index: int, *, vocab_size: int, seed: int = 0
) -> npt.NDArray[np.int32]:
    """Return the prompt of a request as ids in 3..vocab_size - 1, shape (prompt_tokens,).

    Equal for equal arguments on every machine. Raises InputError for a vocabulary under 16 ids.
    """
    if vocab_size < _SMALLEST_VOCAB:
        raise InputError("vocab_size", vocab_size, f"at least {_SMALLEST_VOCAB}")
    node_rank, request_rank = workload.sibling_ranks
    tree, node = workload.tree, int(workload.node[index])
    pieces = [
        _tokens(seed, 2 * v, int(tree.segment_tokens[v]), int(node_rank[v]), vocab_size)
        for v in tree.path(node)
    ]
    tail = int(workload.prompt_tokens[index] - tree.depth_tokens[node])
    if tail:
        pieces.append(_tokens(seed, 2 * index + 1, tail, int(request_rank[index]), vocab_size))
    return np.concatenate(pieces)


def _tokens(
    seed: int, stream: int, count: int, rank: int, vocab_size: int
) -> npt.NDArray[np.int32]:
    """Return ``count`` ids of a stream, the leading ones spelling the rank among siblings."""
    usable = vocab_size - _FIRST_ID
    # Philox is a counter-based generator whose raw output NumPy keeps stable over versions.
    key = np.array([seed, stream], dtype=np.uint64)
    ids = (np.random.Philox(key=key).random_raw(count) % usable).astype(np.int32)
    # Least significant digit first: neighbours in rank differ in the first id.
    place = 0
    while place == 0 or (rank and place < count):
        ids[place] = rank % usable
        rank //= usable
        place += 1
    return ids + np.int32(_FIRST_ID)
