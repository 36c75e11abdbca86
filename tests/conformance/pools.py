"""Small request pools with a sharing structure of one's own choice."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from bssim.sim.workload import PrefixTree, Workload


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all sequences share."""
    first, last = min(sequences), max(sequences)
    agree = (a == b for a, b in zip(first, last, strict=False))
    return next((k for k, same in enumerate(agree) if not same), min(len(first), len(last)))


def pool(
    prompts: Sequence[Sequence[int]],
    outputs: Sequence[int],
    priority: Sequence[int] | None = None,
    name: str = "pool",
) -> Workload:
    """Return the workload of explicit prompts: its tree has a node wherever two of them part."""
    parent, segment = [-1], [0]
    node = np.zeros(len(prompts), dtype=np.int32)

    def grow(members: list[int], depth: int, at: int) -> None:
        """Hang ``members``, which agree on ``depth`` tokens, on node ``at`` or below it."""
        branches: dict[int, list[int]] = defaultdict(list)
        for i in members:
            node[i] = at
            if len(prompts[i]) > depth:
                branches[prompts[i][depth]].append(i)
        for branch in branches.values():
            if len(branch) > 1:
                shared = _common([prompts[i][depth:] for i in branch])
                parent.append(at)
                segment.append(shared)
                grow(branch, depth + shared, len(parent) - 1)

    grow(list(range(len(prompts))), 0, 0)
    return Workload(
        name=name,
        prompt_tokens=np.array([len(p) for p in prompts], dtype=np.int64),
        output_tokens=np.array(outputs, dtype=np.int64),
        node=node,
        tree=PrefixTree(np.array(parent, dtype=np.int32), np.array(segment, dtype=np.int64)),
        source=np.zeros(len(prompts), dtype=np.int16),
        source_names=(name,),
        priority=None if priority is None else np.array(priority, dtype=np.int64),
    )


def grown(
    branches: Sequence[tuple[int, int]],
    requests: Sequence[tuple[int, int, int, int]],
    name: str = "pool",
) -> Workload:
    """Return the pool of a recipe.

    ``branches``: (parent, tokens), node 0 being the empty prefix and ``branches[k]`` node ``k+1``.
    ``requests``: (node, private tail tokens, output tokens, priority); tail 0 on the same node
    twice is an exact duplicate. A request without a token gets one.
    """
    paths: list[list[int]] = [[]]
    for k, (parent, tokens) in enumerate(branches):
        paths.append(paths[parent] + [(k << 20) + j for j in range(tokens)])
    prompts = []
    for i, (node, tail, _, _) in enumerate(requests):
        own = ((len(branches) + i) << 20) + 1
        prompts.append((paths[node] + [own + j for j in range(tail)]) or [own])
    return pool(prompts, [r[2] for r in requests], [r[3] for r in requests], name)
