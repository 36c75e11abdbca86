"""Generate token ids from the prefix tree, to replay a workload on a real engine.

The tokens of a node come from a generator seeded with (seed, node), and the private tail of a
request from one seeded with (seed, request). So any trace, even one with lengths only, replays with
its own sharing. Everything below one node starts with different tokens, so that nothing else is
shared by chance.
"""

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.workload import Workload

_FIRST_ID = 3
"""Most vocabularies use lower ids for padding, beginning of text and end of text."""
_SMALLEST_VOCAB = 16


def exact_vocab_size(workload: Workload) -> int:
    """Return the smallest vocabulary with which the ids share exactly what the tree shares.

    With this size, everything below a node can start with its own id. With a smaller one, several
    leading ids number the siblings, and some siblings share all of these ids except the last.
    """
    node_rank, request_rank = workload.sibling_ranks
    most = max(int(node_rank.max()), int(request_rank.max())) + 1
    return max(_SMALLEST_VOCAB, _FIRST_ID + most)


def prompt_token_ids(
    workload: Workload, index: int, *, vocab_size: int, seed: int = 0
) -> npt.NDArray[np.int32]:
    """Return the prompt of a request as ids in 3..vocab_size - 1, shape (prompt_tokens,).

    The same arguments give the same ids on every machine. Raises InputError for a vocabulary of
    fewer than 16 ids.
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
    """Return ``count`` ids of a stream; the leading ids encode the rank among siblings."""
    usable = vocab_size - _FIRST_ID
    # Philox is a counter-based generator; NumPy keeps its raw output stable across versions.
    key = np.array([seed, stream], dtype=np.uint64)
    ids = (np.random.Philox(key=key).random_raw(count) % usable).astype(np.int32)
    # Least significant digit first, so that neighbours in rank differ in the first id.
    place = 0
    while place == 0 or (rank and place < count):
        ids[place] = rank % usable
        rank //= usable
        place += 1
    return ids + np.int32(_FIRST_ID)
