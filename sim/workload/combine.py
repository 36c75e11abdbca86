"""Workloads out of workloads: some rows of one, several side by side, another order.

All of it works on columns; the trees are joined under one root and made canonical again.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bssim.sim.workload.prefix_tree import PrefixTree
from bssim.sim.workload.workload import Workload, make_workload


def take(workload: Workload, rows: npt.ArrayLike, *, notes: Sequence[str] = ()) -> Workload:
    """Return the workload of ``rows`` in that order, with ``notes`` added to its own.

    A row may come more than once: copies share the prefix of their node and have private tails of
    their own; ids are then given up, since they would no longer be unique.
    """
    index = np.asarray(rows, dtype=np.int64)
    ids = workload.request_ids
    if ids is not None:
        picked = index.tolist()
        ids = [ids[i] for i in picked] if len(set(picked)) == len(picked) else None
    return make_workload(
        workload.name,
        workload.prompt_tokens[index],
        workload.output_tokens[index],
        tree=workload.tree,
        node=workload.node[index],
        source=workload.source[index],
        source_names=workload.source_names,
        request_ids=ids,
        priority=None if workload.priority is None else workload.priority[index],
        arrival_s=None if workload.arrival_s is None else workload.arrival_s[index],
        max_tokens=None if workload.max_tokens is None else workload.max_tokens[index],
        notes=(*workload.notes, *notes),
    )


def shuffle(workload: Workload, rng: np.random.Generator) -> Workload:
    """Return the workload with its requests in random order."""
    return take(workload, rng.permutation(len(workload)))


def subsample(workload: Workload, num_requests: int, rng: np.random.Generator) -> Workload:
    """Return ``num_requests`` requests drawn without replacement, kept in their order.

    Asking for as many as there are, or more, returns the workload itself.
    """
    if num_requests >= len(workload):
        return workload
    rows = np.sort(rng.choice(len(workload), size=num_requests, replace=False))
    note = f"sampled {num_requests} of {len(workload)} requests without replacement, order kept"
    return take(workload, rows, notes=(note,))


def concatenate(workloads: Sequence[Workload], *, name: str, notes: Sequence[str] = ()) -> Workload:
    """Return the requests of all workloads, one after another, their trees under one root.

    Prefixes of different workloads are different. Ids, arrival times and output caps survive when
    every part has them (ids: and they stay unique); a part without priorities counts as all 0.
    Sources of the same name are one.
    """
    names = list(dict.fromkeys(s for w in workloads for s in w.source_names))
    parents, segments, nodes, sources = [np.array([-1])], [np.array([0])], [], []
    used = 0
    for w in workloads:
        # Node v of this tree becomes used + v; its root becomes the common root, 0.
        up = w.tree.parent[1:].astype(np.int64)
        parents.append(np.where(up == 0, 0, up + used))
        segments.append(w.tree.segment_tokens[1:])
        nodes.append(np.where(w.node == 0, 0, w.node.astype(np.int64) + used))
        sources.append(np.array([names.index(s) for s in w.source_names])[w.source])
        used += w.tree.num_nodes - 1
    ids: list[str] | None = None
    if all(w.request_ids is not None for w in workloads):
        ids = [i for w in workloads for i in w.request_ids or ()]
        ids = ids if len(set(ids)) == len(ids) else None
    priority = arrival = caps = None
    if any(w.priority is not None for w in workloads):
        priority = np.concatenate(
            [np.zeros(len(w)) if w.priority is None else w.priority for w in workloads]
        )
    arrivals = [w.arrival_s for w in workloads if w.arrival_s is not None]
    if len(arrivals) == len(workloads):
        arrival = np.concatenate(arrivals)
    limits = [w.max_tokens for w in workloads if w.max_tokens is not None]
    if len(limits) == len(workloads):
        caps = np.concatenate(limits)
    return make_workload(
        name,
        np.concatenate([w.prompt_tokens for w in workloads]),
        np.concatenate([w.output_tokens for w in workloads]),
        tree=PrefixTree(
            np.concatenate(parents).astype(np.int32), np.concatenate(segments).astype(np.int64)
        ),
        node=np.concatenate(nodes),
        source=np.concatenate(sources),
        source_names=names,
        request_ids=ids,
        priority=priority,
        arrival_s=arrival,
        max_tokens=caps,
        notes=(*(note for w in workloads for note in w.notes), *notes),
    )
