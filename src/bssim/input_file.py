"""Read input files whole, but never hang on a pipe, and never fill the memory with what is no text.

A named pipe without a writer would block `open` for ever, `/dev/zero` never ends, and a small gzip
file can hold terabytes. Each of them is an `InputError` here.
"""

import os
import select
import stat
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from bssim.errors import InputError

WAIT_S = 2.0
"""A pipe without a writer is refused after so many seconds."""
CHUNK = 1 << 20
MOST_ENDLESS = 4 << 30
"""Bytes read at most from a device or pipe, and from inside a gzip file."""
MOST_RATIO = 200
"""A gzip file with text may hold up to so many times its own size..."""
FREE_BYTES = 64 << 20
"""...beyond so many bytes. Repetitive batch files reach some 50 times."""


def chunks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file in pieces.

    Raises OSError for a file that cannot be opened, and InputError for NUL bytes, which no text
    has, for a pipe without a writer, and for a device that does not end.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in the name
        raise InputError(f"file {str(path)!r}", "no such file", "a name without NUL") from error
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(21, os.strerror(21), str(path))
        first = _first_of_pipe(descriptor, path) if stat.S_ISFIFO(kind) else b""
        os.set_blocking(descriptor, True)
        total = 0
        while piece := first or os.read(descriptor, CHUNK):
            first = b""
            if (at := piece.find(b"\0")) >= 0 and not (total == 0 and piece[:2] == b"\x1f\x8b"):
                raise InputError(path, f"a NUL byte at {total + at}", "text in UTF-8")
            total += len(piece)
            if total > MOST_ENDLESS and not stat.S_ISREG(kind):
                raise InputError(path, "a pipe or device that does not end", "a file")
            yield piece
            if total == len(piece) and piece[:2] == b"\x1f\x8b":
                break
        else:
            return
        while piece := os.read(descriptor, CHUNK):  # the rest of a gzip file, which may hold NULs
            yield piece
    finally:
        os.close(descriptor)


def _first_of_pipe(descriptor: int, path: Path) -> bytes:
    """Wait until a pipe has a writer; return the bytes that this took from it."""
    deadline = time.monotonic() + WAIT_S
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while not poll.poll(0):
        try:
            first = os.read(descriptor, 1)
        except BlockingIOError:
            return b""  # there is a writer, which has not written yet
        if first:
            return first
        if time.monotonic() > deadline:
            raise InputError.saying(path, "is a pipe that nobody writes to", "a file")
        time.sleep(0.02)
    return b""


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Return the bytes of a file, unpacked if it is gzip; see `chunks` for the errors.

    ``most``: raise InputError for a file of more bytes.
    """
    return bytes(_read(path, most))


def read_text(path: Path, most: int | None = None) -> str:
    """Return the text of a UTF-8 file, without a byte-order mark; see `read_bytes`."""
    return _read(path, most).decode("utf-8-sig")


def _read(path: Path, most: int | None) -> bytes | bytearray:
    """Return what `read_bytes` does, without a copy: batch files can have gigabytes."""
    data = bytearray()
    for piece in chunks(path):
        data += piece
        if most is not None and len(data) > most:
            raise InputError(path, f"more than {most:,} bytes", "a file that a person wrote")
    if data[:2] == b"\x1f\x8b":
        return _unzipped(path, data)
    return data


def _unzipped(path: Path, data: bytearray) -> bytes:
    """Return what a gzip file holds. Raises zlib.error, or EOFError for a truncated file."""
    found, rest = bytearray(), bytes(data)
    while rest.strip(b"\0"):
        stream = zlib.decompressobj(wbits=31)
        while True:
            piece = stream.decompress(rest, 16 * CHUNK)
            rest = stream.unconsumed_tail
            if (at := piece.find(b"\0")) >= 0:
                raise InputError(path, f"a NUL byte at {len(found) + at}", "text in UTF-8")
            found += piece
            if len(found) > min(MOST_ENDLESS, FREE_BYTES + MOST_RATIO * len(data)):
                raise InputError.saying(
                    path, f"unpacks to more than {len(found) >> 20:,} MB", "a smaller or plain file"
                )
            if stream.eof:
                break
            if not rest and not piece:
                raise EOFError("the file ends in the middle")
        rest = stream.unused_data
    return bytes(found)


def lines_head(path: Path) -> bytes:
    """Return a plain or gzip file up to the end of its first line that is not blank."""
    data = bytearray()
    unpack = None
    for piece in chunks(path):
        if not data and unpack is None and piece[:2] == b"\x1f\x8b":
            unpack = zlib.decompressobj(wbits=31)
        text = piece if unpack is None else unpack.decompress(piece, 16 * CHUNK)
        if b"\0" in text:
            raise InputError(path, "a NUL byte", "text in UTF-8")
        data += text
        start = len(data) - len(data.lstrip())
        if (end := data.find(b"\n", start)) >= 0 and start < len(data):
            return bytes(data[: end + 1])
    return bytes(data)
