"""The output file of a run. Rows are appended as requests finish; a run resumes after a crash.

Every row is flushed to the operating system at once, so a killed process loses none. The file is
synced to disk when a row is written `SYNC_S` seconds or more after the last sync.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self

from bssim import __version__
from bssim.errors import InputError
from bssim.experiments.batch.run_lines import CheckedBatch
from bssim.input_file import read_text
from bssim.whole_file import replacing

SYNC_S = 1.0
"""Seconds between syncs to disk."""
MOST_HEAD = 1 << 20
"""Bytes of the file with the settings."""
MOST_TOKENS = 1 << 53
"""Counts are smaller, as in every input of bssim."""
Row = dict[str, Any]


class FinishedRows:
    """What later plans need to know about every finished request."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        """By index: ``prompt_tokens``, ``output_tokens``, ``ended``, ``failed`` of each row."""

    def write(self, index: int, row: Row) -> None:
        """Keep a row."""
        self.rows[index] = facts(row)

    def observed(self) -> Iterator[tuple[int, int, bool]]:
        """Yield (index, output tokens, ended by the model) of every request that did not fail."""
        for index, row in self.rows.items():
            if not row["failed"]:
                yield index, row["output_tokens"], row["ended"]


class Results(FinishedRows):
    """The rows written so far, and the open file for more. A context manager."""

    def __init__(self, path: Path, batch: CheckedBatch, settings: Row) -> None:
        """Open ``path``, read the rows of an earlier run, and cut off an incomplete last row.

        ``settings`` go to a file next to it, whose ``batch_sha256`` must stay the same. Raises
        InputError for the results of another batch file, for a file that this command did not
        write, and for a file that another process is writing.
        """
        super().__init__()
        self.path = path
        self._index = {name: index for index, name in enumerate(batch.custom_ids)}
        self._head = path.with_name(path.name + ".run.json")
        self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115 - `__exit__` closes it
        self._synced = time.monotonic()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise InputError(f"{path}: another process is writing it") from None
        try:
            self._check_head(batch)
            self._read()
            with replacing(self._head) as part:
                head = {"batch": str(batch.path), "batch_sha256": batch.sha256, **settings}
                part.write_text(json.dumps(head, indent=2) + "\n", encoding="utf-8")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _check_head(self, batch: CheckedBatch) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if not self._head.exists():
            if size:
                raise InputError(
                    f"{self.path}: exists, but has no {self._head.name} next to it, so `bssim run` "
                    "did not write it; expected a new file"
                )
            return
        try:
            head = json.loads(read_text(self._head, MOST_HEAD))
            if not isinstance(head, dict):
                raise ValueError("no mapping")
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError.saying(
                self._head, f"not what `bssim run` wrote ({error})", "that, or a new output file"
            ) from error
        if size and head.get("batch_sha256") != batch.sha256:
            raise InputError(
                f"{self.path}: holds results of {head.get('batch')} with other content "
                f"(SHA-256 {str(head.get('batch_sha256'))[:12]}); found {batch.sha256[:12]}; "
                "expected the same batch file, or a new output file"
            )

    def _read(self) -> None:
        """Read the rows, and truncate the file after the last complete one."""
        self._file.seek(0)
        whole = 0
        for number, text in enumerate(self._file, start=1):
            if not text.endswith(b"\n"):
                break  # the process died while writing this row
            try:
                row = json.loads(text)
                index = self._index[row["custom_id"]]
                found = facts(row)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise InputError(
                    f"{self.path}:{number}: found {text[:60]!r}; expected the result of a request "
                    "in the batch file"
                ) from None
            if index in self.rows:
                raise InputError(f"{self.path}:{number}: {row['custom_id']!r} has an earlier row")
            self.rows[index] = found
            whole += len(text)
        self._file.truncate(whole)

    def write(self, index: int, row: Row) -> None:
        """Append a row."""
        data = json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"
        self._file.write(data)
        self._file.flush()
        super().write(index, row)
        if time.monotonic() > self._synced + SYNC_S:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


def facts(row: Row) -> Row:
    """Return the parts of an output row that later plans and the summary need.

    Raises KeyError, TypeError, ValueError or AttributeError for anything else.
    """
    response = row.get("response") or {}
    body = response.get("body") or {}
    usage = body.get("usage") or {}
    choices = body.get("choices") or [{}]
    return {
        "prompt_tokens": _count(usage.get("prompt_tokens") or 0),
        "output_tokens": _count(usage.get("completion_tokens") or 0),
        "ended": choices[0].get("finish_reason") in ("stop", "tool_calls"),
        "failed": bool(row.get("error")) or response.get("status_code") != 200,
    }


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < MOST_TOKENS:
        raise ValueError(value)
    return value


def settings_of(model: str, scheduler: str, engine_args: list[str], dp: int) -> Row:
    """Return the settings of the run for the file next to the results."""
    return {
        "model": model,
        "scheduler": scheduler,
        "engine_args": engine_args,
        "dp": dp,
        "bssim_version": __version__,
    }
