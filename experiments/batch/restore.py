"""``bssim restore``: put the results of one or more shards into the order of the input."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bssim.errors import InputError
from bssim.experiments.batch.writing import write_lines
from bssim.sim.workload.readers import SourceText, objects, read_text


@dataclass(frozen=True)
class Restored:
    """What `restore` found. All lists hold ``custom_id`` values in the order of the input."""

    out: str
    num_requests: int
    written: int
    missing: tuple[str, ...]
    """Requests without a result."""
    duplicate: tuple[str, ...]
    """Requests with several results. The first successful one is written, or else the first."""
    failed: tuple[str, ...]
    """Requests whose result is an error."""
    unknown: tuple[str, ...]
    """Results that match no request of the input; they are left out."""

    def as_json(self) -> dict[str, Any]:
        """Return the record as ``--json`` prints it."""
        lists = ("missing", "duplicate", "failed", "unknown")
        return {
            "out": self.out,
            "num_requests": self.num_requests,
            "written": self.written,
            **{name: list(getattr(self, name)) for name in lists},
        }


def restore(batch: str | Path, results: Sequence[str | Path], out: str | Path) -> Restored:
    """Write the results of a batch in the order of its input, joined by ``custom_id``.

    Args:
        batch: The batch file as it was before `plan`.
        results: Output files, one per shard.
        out: File to write. ``-`` means standard output; a name ending in ``.gz`` is compressed.

    Returns:
        The missing, duplicate, failed and unknown requests.

    Raises:
        InputError: for files that are not batch files or batch output files.

    >>> import bssim, pathlib
    >>> for name, ids in (("in.jsonl", "ab"), ("out.jsonl", "ba")):
    ...     rows = [f'{{"custom_id": "{i}", "body": {{}}}}' for i in ids]
    ...     _ = pathlib.Path(name).write_text("".join(f"{row}\\n" for row in rows))
    >>> bssim.restore("in.jsonl", ["out.jsonl"], "restored.jsonl").missing
    ()
    """
    if not results:
        raise InputError("results", "no file", "at least one batch output file")
    ids = [custom_id for custom_id, *_ in _rows(batch, "body")]
    wanted = set(ids)
    if len(wanted) < len(ids):
        raise InputError(str(batch), "the same custom_id twice", "each custom_id once")
    best: dict[str, tuple[str, bool]] = {}
    duplicate: set[str] = set()
    unknown: list[str] = []
    for path in results:
        for custom_id, line, row in _rows(path, None):
            if custom_id not in wanted:
                unknown.append(custom_id)
                continue
            good = _succeeded(row)
            if custom_id in best:
                duplicate.add(custom_id)
                if best[custom_id][1] or not good:
                    continue
            best[custom_id] = (line, good)
    write_lines(Path(out), [best[i][0] for i in ids if i in best])
    return Restored(
        out=str(out),
        num_requests=len(ids),
        written=len(best),
        missing=tuple(i for i in ids if i not in best),
        duplicate=tuple(i for i in ids if i in duplicate),
        failed=tuple(i for i in ids if i in best and not best[i][1]),
        unknown=tuple(dict.fromkeys(unknown)),
    )


def _rows(path: str | Path, field: str | None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield id, line and object of every row. Every row must have ``field``, unless it is None."""
    source = SourceText(path=str(path), name=Path(path).stem, text=read_text(Path(path)))
    lines = source.text.split("\n")
    for number, row in objects(source):
        custom_id = row.get("custom_id")
        if not isinstance(custom_id, str | int) or isinstance(custom_id, bool):
            raise source.error(number, "custom_id", custom_id, "a string")
        if field is not None and field not in row:
            raise source.error(number, field, None, "a line of a batch file")
        yield str(custom_id), lines[number - 1], row


def _succeeded(row: dict[str, Any]) -> bool:
    response = row.get("response")
    if row.get("error") or not isinstance(response, dict):
        return False
    return bool(response.get("status_code", 200) == 200)
