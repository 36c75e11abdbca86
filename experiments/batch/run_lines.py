"""Read the lines of a batch file for `bssim run`: first to check them, later to render them."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from bssim.backends.vllm import ENDPOINTS
from bssim.errors import InputError, unknown_name

UNSUPPORTED = {
    "stream": (False, "false: results are written to a file"),
    "n": (1, "1: write the line n times, each with its own custom_id; the prompt is cached"),
    "best_of": (1, "1"),
    "use_beam_search": (False, "false"),
    "prompt_embeds": (None, "a prompt as text or token ids"),
}
"""Body fields with only one supported value: the value, and the text after "expected"."""
MOST_LINE = 1 << 28
"""A line has fewer bytes; a small gzip file may hold a line without end."""
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Line:
    """A request of the file."""

    index: int
    """Position among the requests of the file, from 0."""
    custom_id: str
    url: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CheckedBatch:
    """The contents of a file without the bodies, which are read again for rendering."""

    path: Path
    custom_ids: list[str]
    """By index."""
    models: dict[str, int]
    """Each model named in a body, with the number of the first line that names it."""
    sha256: str


def check_batch(path: Path) -> CheckedBatch:
    """Read the whole file. Raises InputError naming line and field if a request cannot be run."""
    ids: dict[str, int] = {}
    models: dict[str, int] = {}
    sha = hashlib.sha256()
    for number, text in _numbered(path):
        sha.update(text)
        line = _parse(path, number, text, len(ids))
        first = ids.setdefault(line.custom_id, number)
        if first != number:
            raise InputError(
                f"{path}:{number}: custom_id: found {line.custom_id!r}, as in line {first}; "
                "expected a unique id"
            )
        _check_body(f"{path}:{number}", line)
        model = line.body.get("model")
        if model is not None:
            models.setdefault(str(model), number)
    if not ids:
        raise InputError(f"{path}: found no requests; expected an OpenAI batch file")
    return CheckedBatch(path, list(ids), models, sha.hexdigest())


def read_lines(file: CheckedBatch) -> Iterator[Line]:
    """Yield the requests of a checked file in file order."""
    for index, (number, text) in enumerate(_numbered(file.path)):
        yield _parse(file.path, number, text, index)


def check_models(file: CheckedBatch, served: list[str]) -> None:
    """Raise InputError if a body names a model that the engine does not serve."""
    for model, number in file.models.items():
        if model not in served:
            raise InputError(
                f"{file.path}:{number}: body.model: found {model!r}; the engine serves "
                f"{' and '.join(served)}; expected that, or "
                f'--engine-args "--served-model-name {model}" if it is the same model'
            )


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with _opened(path) as file:
            number = 0
            while text := file.readline(MOST_LINE):
                number += 1
                if len(text) == MOST_LINE:
                    most = f"at most {MOST_LINE:,} bytes per line"
                    raise InputError.saying(f"{path}:{number}", "too long", most)
                if text.strip():
                    yield number, text
    except (OSError, EOFError, zlib.error) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise InputError(f"{path}: {why}; expected an OpenAI batch file") from None


def _opened(path: Path) -> IO[bytes]:
    """Open a file, which is read twice, so it must not be a pipe or device."""
    if path.exists() and not path.is_file():
        raise InputError.saying(path, "not a regular file", "an OpenAI batch file")
    with open(path, "rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    return cast("IO[bytes]", gzip.open(path)) if compressed else open(path, "rb")


def _parse(path: Path, number: int, text: bytes, index: int) -> Line:
    where = f"{path}:{number}"
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of more than 4,300 digits
        raise InputError(f"{where}: found bad JSON ({error}); expected an object") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: found {type(row).__name__}; expected an object")
    custom_id, method, url, body = (row.get(k) for k in ("custom_id", "method", "url", "body"))
    if not isinstance(custom_id, str) or not custom_id:
        raise InputError(f"{where}: custom_id: found {custom_id!r}; expected a string")
    if method not in (None, "POST"):
        raise InputError(f"{where}: method: found {method!r}; expected POST")
    if url not in ENDPOINTS:
        raise unknown_name(f"{where}: url", url, ENDPOINTS)
    if not isinstance(body, dict):
        raise InputError(f"{where}: body: found {body!r}; expected an object")
    return Line(index, custom_id, str(url), body)


def _check_body(where: str, line: Line) -> None:
    body = line.body
    for name, (allowed, instead) in UNSUPPORTED.items():
        if body.get(name) not in (None, allowed):
            raise InputError(f"{where}: body.{name}", repr(body[name]), instead)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and not all(type(token) is int for token in prompt):
        raise InputError(
            f"{where}: body.prompt: found a list; expected one prompt, as text or token ids: "
            "write one line per prompt"
        )
    messages = body.get("messages")
    for i, message in enumerate(messages if isinstance(messages, list) else ()):
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in (None, "text", "refusal"):
                raise InputError(
                    f"{where}: body.messages[{i}].content: found a part of type {kind!r}; "
                    "expected only text parts"
                )
