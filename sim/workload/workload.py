"""A pool of requests, columnar and immutable."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bssim.sim.workload.prefix_tree import PrefixTree


@dataclass(frozen=True, eq=False)
class Workload:
    """Requests as columns, one row a request, in pool order (the order of `fcfs`)."""

    name: str
    prompt_tokens: npt.NDArray[np.int64]
    """Shape (n,): prompt length, at least 1."""
    output_tokens: npt.NDArray[np.int64]
    """Shape (n,): output length, at least 1: what is generated; schedulers do not see it."""
    node: npt.NDArray[np.int32]
    """Shape (n,): deepest node of `tree` on the prompt's path; ``depth <= prompt_tokens``."""
    tree: PrefixTree
    source: npt.NDArray[np.int16]
    """Shape (n,): index into `source_names`, the trace a request came from."""
    source_names: tuple[str, ...]
    request_ids: Sequence[str] | None = None
    """One id a request; None means ``r0``, ``r1``, ... in pool order."""
    priority: npt.NDArray[np.int64] | None = None
    """Shape (n,): vLLM's priority, lower first; None means all 0."""
    arrival_s: npt.NDArray[np.float64] | None = None
    """Shape (n,): arrival time as the trace has it; an offline pool ignores it."""
    max_tokens: npt.NDArray[np.int64] | None = None
    """Shape (n,): the user's cap on the output, where the file gives one."""
    notes: tuple[str, ...] = field(default=())
    """What a reader or synthesis did that a user must know: caps, drops, fits, targets reached."""

    def __len__(self) -> int:
        """Return the number of requests."""
        return len(self.prompt_tokens)

    def request_id(self, index: int) -> str:
        """Return the id of a request."""
        return self.request_ids[index] if self.request_ids is not None else f"r{index}"
