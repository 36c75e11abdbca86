"""Workloads made from workloads: select, reorder, join and cap requests.

Everything works on columns. Joined trees share one root and are made canonical again.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.prefix_tree import PrefixTree
from bssim.sim.workload.workload import Workload, make_workload


def take(workload: Workload, rows: npt.ArrayLike, *, notes: Sequence[str] = ()) -> Workload:
    """Return the requests of ``rows``, in that order, with ``notes`` added to the workload's own.

    A row may appear more than once. Its copies share the prefix of their node, and each has its own
    private tail. The result then has no ids, because they would not be unique.
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


def select(workload: Workload, rows: npt.ArrayLike, *, notes: Sequence[str] = ()) -> Workload:
    """Return some of the requests, in the order of ``rows``, with the ids they had.

    ``rows`` names each request at most once. In a workload without ids, a request keeps the id of
    its row, such as ``r3``, so that you can find it in the full workload.
    """
    index = np.asarray(rows, dtype=np.int64)
    ids = tuple(workload.request_id(row) for row in index.tolist())
    return replace(take(workload, index, notes=notes), request_ids=ids)


def shuffle(workload: Workload, rng: np.random.Generator) -> Workload:
    """Return the workload with its requests in random order."""
    return take(workload, rng.permutation(len(workload)))


def subsample(workload: Workload, num_requests: int, rng: np.random.Generator) -> Workload:
    """Return ``num_requests`` requests, drawn without replacement and kept in their order.

    If the workload has no more than that, return it unchanged.
    """
    if num_requests >= len(workload):
        return workload
    rows = np.sort(rng.choice(len(workload), size=num_requests, replace=False))
    note = f"sampled {num_requests:,} of {len(workload):,} requests without replacement, order kept"
    return select(workload, rows, notes=(note,))


def concatenate(workloads: Sequence[Workload], *, name: str, notes: Sequence[str] = ()) -> Workload:
    """Return the requests of all workloads, one after another, with their trees under one root.

    Different workloads never share a prefix. Arrival times and output caps are kept if every part
    has them, and ids if they also stay unique. A part without priorities has priority 0. Sources
    with the same name become one.
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


def cap_lengths(
    workload: Workload,
    *,
    max_prompt_tokens: int | None = None,
    max_output_tokens: int | None = None,
) -> Workload:
    """Cut longer prompts and outputs to the caps; the notes say how many were cut.

    A cut prompt keeps its beginning, so a prefix longer than the cap ends at the cap. Raises
    InputError for a cap below 1.
    """
    prompt, output, segment = (
        workload.prompt_tokens,
        workload.output_tokens,
        workload.tree.segment_tokens,
    )
    notes = list(workload.notes)
    for label, cap in (
        ("max_prompt_tokens", max_prompt_tokens),
        ("max_output_tokens", max_output_tokens),
    ):
        if cap is not None and cap < 1:
            raise InputError(label, cap, "at least 1")
    if max_prompt_tokens is not None:
        notes.append(_cut_note(workload.name, "prompts", prompt, max_prompt_tokens))
        prompt = np.minimum(prompt, max_prompt_tokens)
        depth = np.minimum(workload.tree.depth_tokens, max_prompt_tokens)
        segment = depth.copy()
        segment[1:] -= depth[workload.tree.parent[1:]]
    if max_output_tokens is not None:
        notes.append(_cut_note(workload.name, "outputs", output, max_output_tokens))
        output = np.minimum(output, max_output_tokens)
    if len(notes) == len(workload.notes):
        return workload
    return make_workload(
        workload.name,
        prompt,
        output,
        tree=PrefixTree(workload.tree.parent, segment),
        node=workload.node,
        source=workload.source,
        source_names=workload.source_names,
        request_ids=workload.request_ids,
        priority=workload.priority,
        arrival_s=workload.arrival_s,
        max_tokens=workload.max_tokens,
        notes=notes,
    )


def _cut_note(name: str, what: str, tokens: npt.NDArray[np.int64], cap: int) -> str:
    count = int(np.count_nonzero(tokens > cap))
    return f"{name}: {count:,} of {len(tokens):,} {what} cut to {cap:,} tokens"
