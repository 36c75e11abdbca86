"""Files that are written completely or not at all, with errors that name the file."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bssim.errors import InputError


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add ``path`` to an OSError that names no file, such as a full disk during a write."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:  # otherwise it hides the text
            error.filename, error.strerror = str(path), os.strerror(error.errno)
        raise


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name to write to; the file replaces ``path`` at the end.

    A device, a pipe or a link (such as /dev/stdout) is written directly, because a regular file
    must not replace it. Raises InputError if the folder is missing.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(path, f"no folder {target.parent}", "an existing one")
    if target.is_symlink() or (target.exists() and not target.is_file()):
        with naming(target):
            yield target
        return
    # Not the process id: containers that share a folder often have the same one.
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with naming(target):
            yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
