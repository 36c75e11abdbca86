"""Replay a schedule on a backend, and keep every measurement even if the replay fails.

A replay writes three files: ``replay.json`` (settings and totals), and next to it
``replay.steps.jsonl`` and ``replay.requests.jsonl``, which grow every few seconds. All three
survive a crash, and ``resume`` serves the missing requests on an empty cache.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from bssim.backends.base import (
    Backend,
    ReplayError,
    ReplayRequest,
    ReplayResult,
    Row,
    Session,
)
from bssim.backends.replay_rows import HEAD, REQUEST, STEP, Kinds, check_row
from bssim.errors import InputError
from bssim.input_file import read_text
from bssim.sim.engine import AdmissionPolicy, EngineConfig
from bssim.sim.schedule import Schedule
from bssim.sim.workload import Workload
from bssim.whole_file import replacing

FLUSH_S = 5.0
"""Seconds between writes to the journal. The measured time excludes writing."""


def replay(
    backend: Backend,
    workload: Workload,
    schedule: Schedule,
    out: Path,
    *,
    resume: bool = False,
    session: Session | None = None,
    policies: Sequence[AdmissionPolicy] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Serve the requests of ``schedule`` in order, and write ``out`` and its two journals.

    The replicas of a data-parallel schedule run one after another, each on an empty cache;
    `ReplayResult.wall_s` is the time of the slowest. ``progress`` is called with the number of
    finished requests and of all requests. ``session`` is a running engine of ``backend``.
    ``policies``, one per replica, admit at run time; then only the split of the schedule over
    replicas is used. Raises InputError if ``schedule`` is not for ``workload``, if ``out`` exists
    (without ``resume``) or if ``out`` is from another schedule (with ``resume``). Raises
    ReplayError if the engine fails or is interrupted; the rows measured so far are kept.
    """
    if schedule.workload_digest != workload.digest():
        raise InputError.saying(
            "schedule",
            (
                f"made for workload {schedule.workload!r} "
                f"(digest {schedule.workload_digest[:12]}); "
                f"found workload {workload.name!r} (digest {workload.digest()[:12]})"
            ),
            "the workload it was made for",
        )
    journal = _Journal(out, workload, schedule, resume)
    done = {row["request_id"] for row in journal.requests}
    session = backend.open(workload) if session is None else session
    journal.describe(session)
    prompts = list(backend.prompts(workload))
    index = {workload.request_id(i): i for i in range(len(workload))}
    if policies is not None and resume:
        raise InputError.saying("resume", "a policy plans for the whole pool", "a new replay")
    try:
        for replica in sorted(set(schedule.replica.tolist())):
            order = schedule.order[schedule.replica == replica].tolist()
            left = [i for i in order if workload.request_id(i) not in done]
            policy = None if policies is None else policies[replica]
            session.reset(policy, index)
            for i in left:
                session.add(_request(workload, i, prompts[i]))
            _serve(session, journal, workload, replica, progress)
    except (Exception, KeyboardInterrupt) as error:
        cause = "interrupted" if isinstance(error, KeyboardInterrupt) else _describe(error)
        result = journal.close(cause)
        raise ReplayError.saying(
            out,
            (
                f"{cause} after {len(result.requests)} of {len(schedule.order)} requests; "
                f"{len(result.steps)} measured steps are kept, --resume serves the rest"
            ),
        ) from error
    return journal.close("")


def _describe(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else 'no message'}"


def _request(workload: Workload, i: int, prompt: list[int]) -> ReplayRequest:
    priority = 0 if workload.priority is None else int(workload.priority[i])
    return ReplayRequest(workload.request_id(i), prompt, int(workload.output_tokens[i]), priority)


def _serve(
    session: Session,
    journal: "_Journal",
    workload: Workload,
    replica: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Step until all requests are finished. The clock runs only while the engine steps."""
    prompt = {workload.request_id(i): int(p) for i, p in enumerate(workload.prompt_tokens)}
    clock, written = 0.0, time.monotonic()
    try:
        while session.unfinished:
            start = time.perf_counter()
            finished = session.step()
            clock += time.perf_counter() - start
            for request in finished:
                journal.requests.append(
                    {
                        "request_id": request.request_id,
                        "prompt_tokens": prompt[request.request_id],
                        "output_tokens": request.output_tokens,
                        "cached_tokens": request.cached_tokens,
                        "finish_s": clock,
                        "replica": replica,
                        "segment": journal.segment,
                    }
                )
            if finished and progress is not None:
                progress(len(journal.requests), journal.num_requests)
            if time.monotonic() - written > FLUSH_S:
                journal.write(session.take_rows(), replica)
                written = time.monotonic()
    finally:
        journal.write(session.take_rows(), replica)


class _Journal:
    """The files of a replay."""

    def __init__(self, out: Path, workload: Workload, schedule: Schedule, resume: bool) -> None:
        self.num_requests = len(schedule.order)
        self.segment = 0
        self.steps: list[Row] = []
        self.requests: list[Row] = []
        self._out = out
        self._head: Row = {
            "workload": workload.name,
            "workload_digest": workload.digest(),
            "scheduler": schedule.scheduler,
            "num_requests": self.num_requests,
        }
        self._engine = EngineConfig()
        self._environment: Row = {}
        if resume:
            self._continue()
        elif out.exists():
            raise InputError.saying(out, "exists", "a new file, or --resume to go on with it")
        else:
            for path in _journals(out):
                path.unlink(missing_ok=True)
        self._saved = len(self.requests)

    def _continue(self) -> None:
        before = read_replay(self._out)
        same = {name: getattr(before, name) for name in self._head}
        for name, value in self._head.items():
            if same[name] != value:
                raise InputError.saying(
                    self._out,
                    f"{name} {same[name]!r} was being replayed; found {value!r}",
                    "the same schedule as before",
                )
        self.steps, self.requests = before.steps, before.requests
        self.segment = before.segments
        for path, rows in zip(_journals(self._out), (self.steps, self.requests), strict=True):
            with replacing(path) as part:  # the last line may be incomplete
                _append(part, rows)

    def describe(self, session: Session) -> None:
        self._engine, self._environment = session.engine, session.environment
        self._write_head("running")

    def write(self, rows: list[Row], replica: int) -> None:
        """Append steps, and the requests finished since the last call."""
        rows = [{"segment": self.segment, "replica": replica, **row} for row in rows]
        self.steps += rows
        steps, requests = _journals(self._out)
        _append(steps, rows)
        _append(requests, self.requests[self._saved :])
        self._saved = len(self.requests)

    def close(self, error: str) -> ReplayResult:
        self._write_head(error)
        return read_replay(self._out)

    def _write_head(self, error: str) -> None:
        result = ReplayResult(
            **self._head,
            engine=self._engine,
            environment=self._environment,
            steps=self.steps,
            requests=self.requests,
        )
        head = {
            **self._head,
            "error": error,
            "totals": result.totals(),
            "engine": asdict(self._engine),
            "environment": self._environment,
        }
        self._out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._out) as part:
            part.write_text(json.dumps(head, indent=2) + "\n", encoding="utf-8")


def _journals(out: Path) -> tuple[Path, Path]:
    return out.with_suffix(".steps.jsonl"), out.with_suffix(".requests.jsonl")


def _append(path: Path, rows: Iterable[Row]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_replay(path: Path) -> ReplayResult:
    """Read the files of `replay`. Raises InputError naming file and line if they are unreadable.

    An incomplete last line, left by a killed process, is ignored.
    """
    try:
        head = json.loads(read_text(path))
    except OSError as error:
        raise InputError.saying(path, str(error.strerror), "a replay to read") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError.saying(path, f"not JSON ({error})", "a replay.json") from error
    expected = ("workload", "workload_digest", "scheduler", "num_requests", "engine")
    missing = [name for name in expected if not isinstance(head, dict) or name not in head]
    if missing:
        raise InputError.saying(path, f"no field {missing[0]!r}", "what `bssim replay` writes")
    steps_file, requests_file = _journals(path)
    steps, requests = _read_lines(steps_file, STEP), _read_lines(requests_file, REQUEST)
    check_row(str(path), head, HEAD)
    return ReplayResult(
        workload=head["workload"],
        workload_digest=head["workload_digest"],
        scheduler=head["scheduler"],
        num_requests=head["num_requests"],
        engine=_engine(path, head["engine"]),
        environment=head.get("environment", {}),
        steps=steps,
        requests=requests,
        error=head.get("error", ""),
    )


def _engine(path: Path, settings: dict[str, Any]) -> EngineConfig:
    known = {f.name for f in fields(EngineConfig)}
    try:
        return EngineConfig(**{k: v for k, v in settings.items() if k in known})
    except InputError as error:
        raise error.blamed_on(f"{path}: engine") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError.saying(f"{path}: engine", f"not engine settings ({error})") from error


def _read_lines(path: Path, kinds: Kinds) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        whole = read_text(path).split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise InputError.saying(path, "not UTF-8", "what `bssim replay` writes") from error
    rows = []
    for number, line in enumerate(whole, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError.saying(f"{path}:{number}", f"not JSON ({error})", "a row") from error
        check_row(f"{path}:{number}", row, kinds)
        rows.append(row)
    return rows
