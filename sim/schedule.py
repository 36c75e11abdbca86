"""The admission order of a run, which a file stores and a backend replays."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

import bssim
from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.step_cost import CostModel
from bssim.errors import InputError
from bssim.input_file import read_text
from bssim.sim.engine import EngineConfig
from bssim.sim.workload import Workload, select
from bssim.whole_file import replacing


@dataclass(frozen=True, eq=False)
class Schedule:
    """The requests of all replicas, in the order in which they were first admitted."""

    workload: str
    """Name of the workload."""
    workload_digest: str
    """Digest of lengths and tree. A schedule is valid only for its own workload."""
    scheduler: str
    order: npt.NDArray[np.int64]
    """Shape (n,): rows of the workload, by first admission (replica by replica)."""
    replica: npt.NDArray[np.int32]
    """Shape (n,): the replica of each entry of `order`."""
    estimated_output_tokens: npt.NDArray[np.float64]
    """Shape (n,): the scheduler's estimates, aligned with `order`."""
    provenance: dict[str, object] = field(default_factory=dict)
    """bssim version, seed, engine settings, model, hardware, output-length estimator."""

    left_out: int = 0
    """Number of requests of the workload that were dropped because they do not fit."""

    @classmethod
    def of(
        cls,
        workload: Workload,
        scheduler: str,
        orders: Sequence[npt.ArrayLike],
        estimated_output_tokens: npt.NDArray[np.float64],
        *,
        left_out: int,
        provenance: dict[str, object],
    ) -> Self:
        """Return the schedule of a run; ``orders`` has the rows that each replica admitted.

        ``estimated_output_tokens`` has shape (n,), by row.
        """
        parts = [np.asarray(order, dtype=np.int64) for order in orders]
        order = np.concatenate(parts)
        return cls(
            workload=workload.name,
            workload_digest=workload.digest(),
            scheduler=scheduler,
            order=order,
            replica=np.repeat(np.arange(len(parts), dtype=np.int32), [len(p) for p in parts]),
            estimated_output_tokens=estimated_output_tokens[order],
            provenance=provenance,
            left_out=left_out,
        )


def made_with(
    llm: LLMSpec, hardware: HardwareSpec, engine: EngineConfig, cost_model: CostModel
) -> dict[str, object]:
    """Return the part of a schedule's provenance that does not depend on the run's options."""
    return {
        "bssim_version": bssim.__version__,
        "engine": asdict(engine),
        "model": llm.name,
        "precision": _precision(llm),
        "hardware": hardware.name,
        "cost_model": cost_model.name,
    }


def _precision(llm: LLMSpec) -> dict[str, object]:
    """Return a model's precision in vLLM's names."""
    found = llm.precision
    return {
        "dtype": found.dtype,
        "quantization": found.quantization,
        "kv_cache_dtype": found.kv_cache_dtype,
    }


def check_precision(schedule: Schedule, llm: LLMSpec) -> None:
    """Raise InputError if the schedule was made for another precision than ``llm`` has.

    Precision decides how many requests fit the KV cache, and so the order. Files of bssim 0.2 do
    not name theirs and pass.
    """
    made, served = schedule.provenance.get("precision"), _precision(llm)
    if made is not None and made != served:
        raise InputError(
            "schedule: provenance.precision",
            f"{made} with {served} to serve",
            "the same: pass its --dtype, or simulate the schedule at this precision",
        )


_FORMAT = "bssim-schedule-1"
_MAX_REPLICA = int(np.iinfo(np.int32).max)


def write_schedule(path: str | Path, schedule: Schedule, workload: Workload) -> None:
    """Write a schedule as JSON lines: a header, then one line per request in order of admission.

    The file is written atomically. Raises InputError if the schedule is for another workload or two
    requests have the same id.
    """
    _rows_by_id(str(path), workload)
    _check_digest(f"{path}", schedule.workload_digest, workload, schedule.workload)
    header = {
        "format": _FORMAT,
        "workload": schedule.workload,
        "workload_digest": schedule.workload_digest,
        "scheduler": schedule.scheduler,
        "num_requests": len(schedule.order),
        **({"left_out": schedule.left_out} if schedule.left_out else {}),
        "provenance": schedule.provenance,
    }
    with replacing(path) as part, open(part, "w", encoding="utf-8") as out:
        out.write(json.dumps(header) + "\n")
        for r, replica, estimate in zip(
            schedule.order.tolist(),
            schedule.replica.tolist(),
            schedule.estimated_output_tokens.tolist(),
            strict=True,
        ):
            line = {
                "id": workload.request_id(r),
                "replica": replica,
                "estimated_output_tokens": estimate,
            }
            out.write(json.dumps(line) + "\n")


def read_schedule(path: str | Path, workload: Workload) -> Schedule:
    """Read a file of `write_schedule` for the same workload.

    Raises InputError naming file and line for anything else: another workload's schedule, a
    truncated file, an unknown or repeated id, a missing or wrong field.
    """
    header, lines = _read_lines(path)
    where = where_head = f"{path}:1"
    made_for = _field(where, header, "workload", str)
    _check_digest(where, _field(where, header, "workload_digest", str), workload, made_for)
    n = _field(where, header, "num_requests", int)
    if n != len(workload) or len(lines) != n:
        raise InputError(
            path,
            f"{len(lines)} requests, num_requests {n} in line 1",
            f"the {len(workload)} of workload {workload.name!r} (is the file complete?)",
        )
    rows = _rows_by_id(str(path), workload)
    order, replicas, estimates = [], [], []
    for number, text in enumerate(lines, start=2):
        where = f"{path}:{number}"
        entry = _json_object(where, text)
        name = _field(where, entry, "id", str)
        row = rows.pop(name, None)
        if row is None:
            raise InputError(
                f"{where}: id",
                repr(name),
                f"an id of workload {workload.name!r} that no line before has",
            )
        replica = _field(where, entry, "replica", int)
        if not 0 <= replica <= _MAX_REPLICA:
            raise InputError(f"{where}: replica", replica, f"0 to {_MAX_REPLICA}")
        order.append(row)
        replicas.append(replica)
        estimate = _field(where, entry, "estimated_output_tokens", int, float)
        if not 0 <= estimate <= sys.float_info.max:
            raise InputError(
                f"{where}: estimated_output_tokens", repr(estimate), "a finite number, 0 or more"
            )
        estimates.append(float(estimate))
    return Schedule(
        workload=made_for,
        workload_digest=workload.digest(),
        scheduler=_field(where_head, header, "scheduler", str),
        order=np.asarray(order, dtype=np.int64),
        replica=np.asarray(replicas, dtype=np.int32),
        estimated_output_tokens=np.asarray(estimates, dtype=np.float64),
        provenance=_field(where_head, header, "provenance", dict),
        left_out=header.get("left_out", 0),
    )


def scheduled_pool(path: str | Path, workload: Workload) -> Workload:
    """Return the requests of a schedule file: ``workload`` without the dropped ones.

    Raises InputError like `read_schedule`, or if both numbers do not add up to the workload.
    """
    header, lines = _read_lines(path)
    if "left_out" not in header:
        return workload
    where = f"{path}:1"
    left_out = _field(where, header, "left_out", int)
    n = _field(where, header, "num_requests", int)
    if n + left_out != len(workload):
        raise InputError(
            where,
            f"num_requests {n} and left_out {left_out}",
            f"the {len(workload)} requests of workload {workload.name!r} together",
        )
    rows = _rows_by_id(str(path), workload)
    named = (_json_object(f"{path}:{k}", line).get("id") for k, line in enumerate(lines, start=2))
    return select(workload, sorted({rows[name] for name in named if name in rows}))


def _read_lines(path: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Return the header of a schedule file and its other lines."""
    try:
        lines = read_text(Path(path)).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError.saying(path, str(why), "a schedule file") from None
    where = f"{path}:1"
    header = _json_object(where, lines[0] if lines else "")
    if header.get("format") != _FORMAT:
        raise InputError(f"{where}: format", repr(header.get("format")), repr(_FORMAT))
    return header, lines[1 : None if lines[-1].strip() else -1]


def _check_digest(where: str, digest: str, workload: Workload, made_for: str) -> None:
    if digest != workload.digest():
        raise InputError(
            f"{where}: workload_digest",
            f"{digest[:12]}, a schedule made for workload {made_for!r}",
            f"{workload.digest()[:12]}, that of workload {workload.name!r}",
        )


def _rows_by_id(where: str, workload: Workload) -> dict[str, int]:
    rows: dict[str, int] = {}
    for row in range(len(workload)):
        first = rows.setdefault(workload.request_id(row), row)
        if first != row:
            raise InputError.saying(
                where,
                (
                    f"requests {first} and {row} of workload {workload.name!r} both have id "
                    f"{workload.request_id(row)!r}"
                ),
                "unique ids in a schedule",
            )
    return rows


def _json_object(where: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # or an integer of more than 4,300 digits
        value = None
    if not isinstance(value, dict):
        raise InputError(where, repr(text[:60]), "a JSON object")
    return value


def _field(where: str, entry: dict[str, Any], name: str, *kinds: type) -> Any:
    value = entry.get(name)
    if not isinstance(value, kinds) or isinstance(value, bool):
        kind = " or ".join(k.__name__ for k in kinds)
        raise InputError(f"{where}: {name}", repr(value), kind)
    return value
