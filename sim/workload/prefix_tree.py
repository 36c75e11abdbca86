"""The compressed trie of shared prompt prefixes, as arrays: the simulator's only form of prompts.

Only what is shared is a node. A request hangs on the deepest node of its path; the rest of its
prompt is its private tail, known by its length alone. 400,000 requests with few shared prefixes
are therefore a tree of a few nodes and two integer columns, not 400,000 token lists.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """A trie over prompt prefixes; node 0 is the root (the empty prefix).

    Canonical: every other node has at least one token and at least two requests at or below it,
    and is not the only thing below its parent. Parents come before children.
    """

    parent: npt.NDArray[np.int32]
    """Shape (nodes,): parent of each node, -1 for the root; ``parent[v] < v``."""
    segment_tokens: npt.NDArray[np.int64]
    """Shape (nodes,): tokens between the parent and the node; 0 for the root only."""

    @property
    def num_nodes(self) -> int:
        """Number of nodes, the root included."""
        return len(self.parent)

    @cached_property
    def depth_tokens(self) -> npt.NDArray[np.int64]:
        """Shape (nodes,): tokens from the root to the end of the node's segment."""
        depth = np.zeros(self.num_nodes, dtype=np.int64)
        parent = self.parent.tolist()
        segment = self.segment_tokens.tolist()
        out = [0] * self.num_nodes
        for v in range(1, self.num_nodes):
            out[v] = out[parent[v]] + segment[v]
        depth[:] = out
        return depth
