"""The trace of a simulation."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bssim.experiments.perfetto.trace import (
    FloatArray,
    IntArray,
    StepTrack,
    Trace,
    TransferTrack,
    admitted_by_side,
    compute_side,
)
from bssim.sim.result import KVTransfer, SimulationResult, Timeline


def simulated(result: SimulationResult, facts: Mapping[str, object]) -> Trace:
    """Return the trace of a result with timelines. ``facts``: what ran, for the metadata."""
    workload, prefill = result.workload, result.prefill_replicas
    side = compute_side(workload.prompt_tokens, workload.output_tokens)
    names = _names(len(result.timelines), prefill)
    return Trace(
        tuple(
            _steps(name, timeline, side)
            for name, timeline in zip(names, result.timelines, strict=True)
        ),
        tuple(_transfers(result.transfers, prefill)),
        dict(facts),
    )


def _names(replicas: int, prefill: int) -> list[str]:
    if prefill:
        names = [f"prefill replica {k + 1}" for k in range(prefill)]
        return names + [f"decode replica {k + 1}" for k in range(replicas - prefill)]
    return ["replica"] if replicas == 1 else [f"replica {k + 1}" for k in range(replicas)]


def _steps(name: str, timeline: Timeline, side: npt.NDArray[np.bool_]) -> StepTrack:
    step_s, work, cost = np.asarray(timeline.step_s), timeline.work, timeline.cost
    end_s = np.cumsum(step_s)
    start_s = end_s - step_s
    if timeline.start_s is not None:
        start_s, end_s = timeline.start_s, timeline.start_s + step_s

    def column(values: object) -> FloatArray:
        return np.broadcast_to(np.asarray(values, np.float64), step_s.shape)

    prefill, decodes = column(work.prefill_tokens), column(work.decode_requests)
    return StepTrack(
        name=name,
        start_s=start_s,
        end_s=end_s,
        prefill_s=np.where(prefill > 0, step_s, 0.0),
        decode_s=np.where(decodes > 0, step_s, 0.0),
        prefill_requests=column(work.prefill_requests),
        prefill_tokens=prefill,
        decode_requests=decodes,
        decode_context_tokens=column(work.decode_context_tokens),
        kv_tokens=timeline.kv_tokens,
        running=timeline.running,
        admitted=admitted_by_side(timeline.admission_step, side[timeline.admitted], len(step_s)),
        preempted=np.bincount(timeline.preemption_step, minlength=len(step_s)),
        steps=np.ones(len(step_s), np.int64),
        compute_s=column(cost.compute_s),
        memory_s=column(cost.memory_s),
    )


def _transfers(transfers: Sequence[KVTransfer], prefill: int) -> Iterator[TransferTrack]:
    """Yield the transfers of each prefill replica, in order of time."""
    for sender in range(prefill):
        mine = sorted((t for t in transfers if t.sender == sender), key=lambda t: t.start_s)

        def whole(values: list[int]) -> IntArray:
            return np.array(values, np.int64)

        yield TransferTrack(
            name=f"from prefill replica {sender + 1}",
            start_s=np.array([t.start_s for t in mine]),
            busy_s=np.array([t.end_s - t.start_s for t in mine]),
            tokens=whole([t.tokens for t in mine]),
            receiver=whole([t.receiver - prefill for t in mine]),
            transfers=np.ones(len(mine), np.int64),
        )
