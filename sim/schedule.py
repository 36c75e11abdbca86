"""The admission order that a run produced: what a backend replays and a file holds."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.workload import Workload


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


def write_schedule(path: str | Path, schedule: Schedule, workload: Workload) -> None:
    """Write a schedule as JSON lines: a head, then one line a request in admission order."""
    head = {
        "schedule_of": schedule.workload,
        "workload_digest": schedule.workload_digest,
        "scheduler": schedule.scheduler,
        "num_requests": len(schedule.order),
        "provenance": schedule.provenance,
    }
    columns = zip(
        schedule.order.tolist(),
        schedule.replica.tolist(),
        schedule.estimated_output_tokens.tolist(),
        strict=True,
    )
    with Path(path).open("w", encoding="utf-8") as file:
        file.write(json.dumps(head) + "\n")
        for index, replica, estimate in columns:
            line = {
                "index": index,
                "id": workload.request_id(index),
                "replica": replica,
                "estimated_output_tokens": estimate,
            }
            file.write(json.dumps(line) + "\n")


def read_schedule(path: str | Path, workload: Workload) -> Schedule:
    """Read what `write_schedule` wrote for ``workload``.

    Raises InputError naming file and line for a file that is no schedule, is cut short, holds a
    request twice, or was made for another workload.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a schedule") from error
    head = _object(path, lines, 0)
    expected = {"schedule_of", "workload_digest", "scheduler", "num_requests"}
    if not expected <= head.keys():
        raise InputError(f"{path}:1: expected the head that `bssim simulate --schedule` writes")
    if head["workload_digest"] != workload.digest():
        raise InputError(
            f"{path}: made for workload {head['schedule_of']!r} "
            f"(digest {head['workload_digest'][:12]}); found workload {workload.name!r} "
            f"(digest {workload.digest()[:12]}); expected the workload it was made for"
        )
    if len(lines) - 1 != head["num_requests"]:
        raise InputError(
            f"{path}: found {len(lines) - 1} requests; expected {head['num_requests']} "
            "(the file was cut short)"
        )
    rows = [_object(path, lines, k) for k in range(1, len(lines))]
    seen: set[int] = set()
    for k, row in enumerate(rows, start=2):
        index = row.get("index")
        if not isinstance(index, int) or not 0 <= index < len(workload) or index in seen:
            raise InputError(
                f"{path}:{k}: index: found {index!r}; expected each of 0 to {len(workload) - 1} "
                "at most once"
            )
        seen.add(index)
    return Schedule(
        workload=head["schedule_of"],
        workload_digest=head["workload_digest"],
        scheduler=head["scheduler"],
        order=np.array([row["index"] for row in rows], dtype=np.int64),
        replica=np.array([row.get("replica", 0) for row in rows], dtype=np.int32),
        estimated_output_tokens=np.array(
            [row.get("estimated_output_tokens", np.nan) for row in rows], dtype=np.float64
        ),
        provenance=head.get("provenance", {}),
    )


def _object(path: str | Path, lines: list[str], k: int) -> dict[str, Any]:
    """Return line ``k`` as a JSON object."""
    try:
        found = json.loads(lines[k])
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{path}:{k + 1}: not JSON; expected a line of a schedule (is the file cut short?)"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path}:{k + 1}: found {found!r}; expected a JSON object")
    return found
