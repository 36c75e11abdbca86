"""The admission order that a run produced: what a backend replays and a file holds."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Schedule:
    """Requests in the order in which they were first admitted, over all replicas."""

    workload: str
    """Name of the workload."""
    workload_digest: str
    """Digest of lengths and tree: a schedule is only for the workload it was made from."""
    scheduler: str
    order: npt.NDArray[np.int64]
    """Shape (n,): rows of the workload, by first admission (replica by replica)."""
    replica: npt.NDArray[np.int32]
    """Shape (n,): the replica each entry of `order` ran on."""
    estimated_output_tokens: npt.NDArray[np.float64]
    """Shape (n,): the estimate the scheduler used, aligned with `order`."""
    provenance: dict[str, object] = field(default_factory=dict)
    """bssim version, seed, engine knobs, model, hardware, output-length estimator."""
