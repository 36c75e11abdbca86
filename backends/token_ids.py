"""Token ids for a pool that is known by lengths and sharing alone.

A replay needs real prompts. Every node of the prefix tree, and every request's private tail, gets
tokens from a generator seeded with the node (or the request), so two prompts share exactly the
tokens that the tree says they share, whatever trace the lengths came from.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.workload import Workload

FIRST_TOKEN_ID = 16
"""Lower ids are left to the special tokens that most vocabularies begin with."""


class PromptTokens:
    """The prompts of a workload as token ids, made on demand and always the same.

    The segments that leave one node begin with different tokens: they are numbered, and the number
    is written in as many leading tokens as it takes. Random tokens alone would let two branches
    agree by chance on a few tokens, and sharing would no longer be what the tree says.
    """

    def __init__(self, workload: Workload, vocab_size: int, seed: int = 0) -> None:
        """Number the branches of every node.

        Raises InputError where a segment is too short to tell it from its siblings, which takes
        more branches at one node than the vocabulary has tokens.
        """
        self._workload = workload
        self._low, self._base = FIRST_TOKEN_ID, vocab_size - FIRST_TOKEN_ID
        self._seed = seed
        if self._base < 2:
            raise InputError(f"vocab_size: found {vocab_size}; expected at least {self._low + 2}")
        tree = workload.tree
        self._tail = workload.prompt_tokens - tree.depth_tokens[workload.node]
        branches: list[int] = [0] * tree.num_nodes
        self._node_rank = [0] * tree.num_nodes
        self._tail_rank = [0] * len(workload)
        for v in range(1, tree.num_nodes):
            u = int(tree.parent[v])
            self._node_rank[v] = branches[u]
            branches[u] += 1
        for i, u in enumerate(workload.node.tolist()):
            if self._tail[i]:
                self._tail_rank[i] = branches[u]
                branches[u] += 1
        self._digits = [self._digits_for(count) for count in branches]
        self._check_lengths(branches)
        self._node_tokens: dict[int, list[int]] = {}

    def _digits_for(self, count: int) -> int:
        digits = 1
        while self._base**digits < count:
            digits += 1
        return digits

    def _check_lengths(self, branches: list[int]) -> None:
        tree = self._workload.tree
        for v in range(1, tree.num_nodes):
            self._check_length(int(tree.parent[v]), int(tree.segment_tokens[v]), branches)
        for u, tail in zip(self._workload.node.tolist(), self._tail.tolist(), strict=True):
            if tail:
                self._check_length(u, tail, branches)

    def _check_length(self, node: int, tokens: int, branches: list[int]) -> None:
        if tokens < self._digits[node]:
            raise InputError(
                f"workload {self._workload.name}: node {node} of the prefix tree has "
                f"{branches[node]} branches, one of them {tokens} token(s) long, and a vocabulary "
                f"of {self._base + self._low} cannot tell them apart; expected a larger vocabulary"
            )

    def _segment(self, parent: int, rank: int, tokens: int, seed: tuple[int, ...]) -> list[int]:
        generator = np.random.default_rng((self._seed, *seed))
        ids: npt.NDArray[np.int64] = generator.integers(self._base, size=tokens)
        for k in range(self._digits[parent]):
            ids[k] = rank % self._base
            rank //= self._base
        return [int(t) for t in ids + self._low]

    def _prefix(self, node: int) -> list[int]:
        """Return the tokens from the root to the end of ``node``; segments are made once."""
        tree = self._workload.tree
        path = []
        while node > 0:
            path.append(node)
            node = int(tree.parent[node])
        tokens: list[int] = []
        for v in reversed(path):
            if v not in self._node_tokens:
                self._node_tokens[v] = self._segment(
                    int(tree.parent[v]), self._node_rank[v], int(tree.segment_tokens[v]), (0, v)
                )
            tokens += self._node_tokens[v]
        return tokens

    def __getitem__(self, request: int) -> list[int]:
        """Return the prompt of a request as ``prompt_tokens[request]`` token ids."""
        node, tail = int(self._workload.node[request]), int(self._tail[request])
        tokens = self._prefix(node)
        if tail:
            tokens += self._segment(node, self._tail_rank[request], tail, (1, request))
        return tokens

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self._workload)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield every prompt, in pool order."""
        return (self[i] for i in range(len(self)))
