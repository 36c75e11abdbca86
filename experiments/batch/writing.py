"""Batch files out: whole or not at all, plain or gzip, one or one per replica."""

import gzip
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from bssim.errors import InputError
from bssim.whole_file import naming, replacing

STDOUT = Path("-")
"""The name that stands for standard output."""


def part_names(out: Path, replicas: int) -> list[Path]:
    """Return the files of an order: ``out``, or ``out.0.jsonl`` ... for several replicas.

    Raises InputError for standard output and several replicas.
    """
    if replicas == 1:
        return [out]
    if out == STDOUT:
        raise InputError(
            "--out",
            f"'-' (standard output) with --dp {replicas}",
            "a file name: there is a file per replica",
        )
    stem, endings = _split(out)
    return [out.with_name(f"{stem}.{k}{endings}") for k in range(replicas)]


def stale_parts(out: Path, replicas: int) -> list[Path]:
    """Return files that an earlier order with another number of replicas left beside these."""
    if out == STDOUT or not out.parent.is_dir():
        return []
    stem, endings = _split(out)
    pattern = re.compile(rf"{re.escape(stem)}\.(\d+){re.escape(endings)}")
    written = {path.name for path in part_names(out, replicas)}
    found = [path for path in out.parent.iterdir() if pattern.fullmatch(path.name)]
    if replicas > 1 and out.is_file():
        found.append(out)
    return sorted(path for path in found if path.name not in written)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines, each with a newline, to a file, gzip if it is named ``.gz``, or to stdout."""
    data = "".join(f"{line}\n" for line in lines).encode()
    if path == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)  # the time would make every file another one
    with replacing(path) as part, naming(path):
        part.write_bytes(data)


def _split(out: Path) -> tuple[str, str]:
    """Return a name without its endings, and these: ``.jsonl``, ``.jsonl.gz``."""
    endings = out.suffix
    stem = out.name.removesuffix(endings)
    if endings == ".gz":
        inner = Path(stem).suffix
        stem, endings = stem.removesuffix(inner), inner + endings
    return stem, endings
