"""Write batch files atomically, plain or gzip, one per replica."""

import gzip
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from bssim.errors import InputError
from bssim.whole_file import naming, replacing

STDOUT = Path("-")
"""The file name that means standard output."""


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
            "a file name, because each replica gets its own file",
        )
    stem, endings = _split(out)
    return [out.with_name(f"{stem}.{k}{endings}") for k in range(replicas)]


def stale_parts(out: Path, replicas: int) -> list[Path]:
    """Return files left by an earlier plan with a different number of replicas."""
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
    """Write one line each to a file or standard output; compress if the name ends in ``.gz``."""
    data = "".join(f"{line}\n" for line in lines).encode()
    if path == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)  # a time would make equal files differ
    with replacing(path) as part, naming(path):
        part.write_bytes(data)


def _split(out: Path) -> tuple[str, str]:
    """Return a name without its extension, and the extension: ``.jsonl`` or ``.jsonl.gz``."""
    endings = out.suffix
    stem = out.name.removesuffix(endings)
    if endings == ".gz":
        inner = Path(stem).suffix
        stem, endings = stem.removesuffix(inner), inner + endings
    return stem, endings
