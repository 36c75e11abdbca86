"""Files that are written whole or not at all, and whose name is known when that fails."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bssim.errors import InputError


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name ``path`` in an OSError that names no file: a full disk is met in the middle of one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.strerror is not None:  # else the name hides the text
            error.filename = str(path)
        raise


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give the name that a file has while it is written; it takes ``path``'s place at the end.

    A device, a pipe or a link (/dev/stdout is one) is written itself: replacing it would leave a
    plain file where others expect it. Raises InputError if the folder is missing.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(path, f"no folder {target.parent}", "an existing one")
    if target.is_symlink() or (target.exists() and not target.is_file()):
        with naming(target):
            yield target
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with naming(target):
            yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
