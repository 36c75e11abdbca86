"""A `Trace` in the JSON format of Chrome's trace viewer, which the Perfetto UI loads.

Every replica is a process with a thread per track. Times are in microseconds with three decimals.
Slices of a track never overlap. A counter is written when it changes.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bssim import __version__
from bssim.experiments.perfetto.trace import (
    FloatArray,
    IntArray,
    StepTrack,
    Trace,
    TransferTrack,
)
from bssim.whole_file import replacing

Arguments = Mapping[str, IntArray | FloatArray]
"""Name -> whole numbers, one per row."""
GZIP_LEVEL = 4
"""Twice as fast as the default, for a tenth more bytes."""


def write_trace(path: Path, trace: Trace) -> Trace:
    """Write a trace, compressed if the name ends in ``.gz``, and return what was written.

    That has slices of time instead of steps if there were too many; see `Trace.shortened`. Equal
    traces give equal bytes.
    """
    short = trace.shortened()
    with replacing(path) as part:
        data = "".join(_pieces(short)).encode()
        if path.suffix == ".gz":
            data = gzip.compress(data, GZIP_LEVEL, mtime=0)
        part.write_bytes(data)
    return short


def _pieces(trace: Trace) -> Iterator[str]:
    """Yield the text of the file in pieces."""
    rows = "one row per step"
    if trace.slice_s is not None:
        rows = f"one row per {trace.slice_s:g} s, with the sums of the steps that start there"
    head = {"bssim_version": __version__, "rows": rows, **trace.facts}
    yield f'{{"displayTimeUnit":"ms","otherData":{json.dumps(head)},"traceEvents":[\n'
    yield ",\n".join(_events(trace))
    yield "\n]}\n"


def _events(trace: Trace) -> Iterator[str]:
    for pid, track in enumerate(trace.replicas, start=1):
        yield from _replica(pid, track, trace.slice_s)
    if trace.transfers:
        pid = len(trace.replicas) + 1
        threads = dict(enumerate((track.name for track in trace.transfers), start=1))
        yield from _names(pid, "KV transfers", threads)
        for tid, sent in enumerate(trace.transfers, start=1):
            yield from _transfers(pid, tid, sent, trace.slice_s)


def _names(pid: int, process: str, threads: Mapping[int, str]) -> Iterator[str]:
    """Yield the metadata that name and order a process and its threads, by number."""
    yield _metadata("process_name", pid, 0, {"name": process})
    yield _metadata("process_sort_index", pid, 0, {"sort_index": pid})
    for tid, thread in threads.items():
        yield _metadata("thread_name", pid, tid, {"name": thread})
        yield _metadata("thread_sort_index", pid, tid, {"sort_index": tid})


def _metadata(name: str, pid: int, tid: int, args: dict[str, object]) -> str:
    return json.dumps({"ph": "M", "name": name, "pid": pid, "tid": tid, "ts": 0, "args": args})


def _replica(pid: int, track: StepTrack, slice_s: float | None) -> Iterator[str]:
    start, end = _nanoseconds(track.start_s), _nanoseconds(track.end_s)
    end[:-1] = np.minimum(end[:-1], start[1:])
    span = np.maximum(end - start, 0)
    nothing: Arguments = {}
    drawn: list[tuple[str, IntArray, IntArray, Arguments]] = [
        ("steps", start, span, nothing if slice_s is None else {"steps": track.steps}),
        (
            "prefill",
            start,
            np.minimum(_nanoseconds(track.prefill_s), span),
            {"tokens": track.prefill_tokens, "chunks": track.prefill_requests},
        ),
        (
            "decode",
            start,
            np.minimum(_nanoseconds(track.decode_s), span),
            {"tokens": track.decode_requests, "context_tokens": track.decode_context_tokens},
        ),
    ]
    if track.compute_s is not None and track.memory_s is not None:
        compute = np.minimum(_nanoseconds(track.compute_s), span)
        memory = np.minimum(_nanoseconds(track.memory_s), span)
        drawn += [
            ("compute", start, compute, nothing),
            ("memory", start + span - memory, memory, nothing),
        ]
    threads = dict(enumerate((name for name, *_ in drawn), start=1))
    instants = len(threads) + 1
    if track.preempted.any():
        threads[instants] = "preemptions"
    rows = "" if slice_s is None else f", slices of {slice_s:g} s"
    yield from _names(pid, track.name + rows, threads)
    for tid, (name, begin, length, args) in enumerate(drawn, start=1):
        yield from _slices(pid, tid, name, begin, length, args)
    for k in np.flatnonzero(track.preempted).tolist():
        yield (
            f'{{"ph":"i","s":"t","name":"preemption","pid":{pid},"tid":{instants},'
            f'"ts":{_us(int(start[k]))},"args":{{"requests":{track.preempted[k]}}}}}'
        )
    last = int(end[-1]) if len(end) else 0
    yield from _counter(pid, "KV", start, last, {"tokens": track.kv_tokens})
    yield from _counter(pid, "running", start, last, {"requests": track.running})
    sides = {"compute side": track.admitted[:, 0], "memory side": track.admitted[:, 1]}
    yield from _counter(pid, "admissions", start, last, sides)


def _transfers(pid: int, tid: int, sent: TransferTrack, slice_s: float | None) -> Iterator[str]:
    start = _nanoseconds(sent.start_s)
    span = _nanoseconds(sent.busy_s)
    span[:-1] = np.minimum(span[:-1], np.diff(start))
    args = {"tokens": sent.tokens}
    if slice_s is None:
        args["to_decode_replica"] = sent.receiver + 1
    else:
        args["transfers"] = sent.transfers
    yield from _slices(pid, tid, "transfer", start, span, args)


def _slices(
    pid: int,
    tid: int,
    name: str,
    start: IntArray,
    span: IntArray,
    args: Arguments,
) -> Iterator[str]:
    """Yield a slice for each row that takes time. ``start``, ``span``: nanoseconds."""
    drawn = span > 0
    head = f'{{"ph":"X","name":"{name}","pid":{pid},"tid":{tid},"ts":'
    rows = zip(
        start[drawn].tolist(),
        span[drawn].tolist(),
        _arguments(args, drawn),
        strict=True,
    )
    for begin, length, text in rows:
        yield f'{head}{_us(begin)},"dur":{_us(length)},"args":{{{text}}}}}'


def _counter(
    pid: int, name: str, start: IntArray, last: int, values: Mapping[str, IntArray]
) -> Iterator[str]:
    """Yield the values where any of them changes, and zeros at the end, ``last``."""
    table = np.stack(list(values.values()), axis=1)
    changed = np.any(np.diff(table, axis=0, prepend=-1) != 0, axis=1)
    head = f'{{"ph":"C","name":"{name}","pid":{pid},"tid":0,"ts":'
    for begin, text in zip(start[changed].tolist(), _arguments(values, changed), strict=True):
        yield f'{head}{_us(begin)},"args":{{{text}}}}}'
    zeros = ",".join(f'"{key}":0' for key in values)
    yield f'{head}{_us(last)},"args":{{{zeros}}}}}'


def _arguments(args: Arguments, rows: npt.NDArray[np.bool_]) -> Iterable[str]:
    """Return the arguments of the chosen rows as the inside of a JSON object."""
    if not args:
        return repeat("", int(rows.sum()))
    template = ",".join(f'"{key}":{{}}' for key in args)
    columns = (np.rint(values[rows]).astype(np.int64).tolist() for values in args.values())
    return map(template.format, *columns)


def _nanoseconds(seconds: FloatArray) -> IntArray:
    return np.rint(seconds * 1e9).astype(np.int64)


def _us(nanoseconds: int) -> str:
    """Return whole nanoseconds as microseconds."""
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03}"
