"""Turn text into token ids with a ``tokenizers`` file, a model folder, or a fixed token size."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.input_file import read_text

Int32Array = npt.NDArray[np.int32]
Message = Mapping[str, str]

MOST_UNKNOWN = 0.1
"""Refuse a tokenizer that maps a larger share of the tokens to its unknown token."""
_NOT_UTF8 = b"\xff"
"""Padding: no UTF-8 text has this byte, so a partial last piece equals no full piece."""
_TODAY = datetime(2024, 7, 26)
"""The date for templates that print it, fixed so that a file has the same tokens every day."""
_HIGH_BITS = 0x80808080
"""A word of four bytes has one of these bits set unless all bytes are ASCII."""


class Tokenizer(Protocol):
    """Turns the prompts of a batch file into token ids."""

    @property
    def label(self) -> str:
        """The description in the notes."""

    @property
    def has_template(self) -> bool:
        """Whether it formats conversations and tools with the chat template of the model."""

    def chat_text(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> str:
        """Return a conversation as one text for the model to continue."""

    def encode(self, texts: Sequence[str], *, chat: bool) -> list[Int32Array]:
        """Return the ids of each text; ``chat`` says that the texts come from `chat_text`."""

    def unknown_tokens(self, ids: Int32Array) -> int:
        """Return how many of the tokens are the unknown token."""


def open_tokenizer(spec: str) -> Tokenizer:
    """Return the tokenizer of ``bytes:N``, of a tokenizer.json, or of a model folder.

    Raises InputError if it cannot be opened, and names the extra to install if one is missing.
    """
    if spec.startswith("bytes:"):
        size = spec.removeprefix("bytes:")
        if not size.isdecimal() or int(size) < 1:
            raise InputError("tokenizer", repr(spec), "bytes:N with N at least 1")
        return BytesTokenizer(int(size))
    path = Path(spec)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            "tokenizer",
            f"no file {str(file)!r}",
            "a tokenizer.json, a model folder with one, or bytes:N",
        )
    try:
        from tokenizers import Tokenizer as FileTokenizer
    except ImportError as e:
        raise InputError.saying(
            "tokenizer", f"{spec!r} needs the tokenizers package; install bssim[tokenize]"
        ) from e
    try:
        encoder = FileTokenizer.from_file(str(file))
    except Exception as e:  # the package raises bare Exception
        raise InputError.saying(file, f"not a tokenizers file: {e}") from e
    return ModelTokenizer(encoder, _unknown_id(file), *_chat_template(file.parent), path.name)


def plain_chat(messages: Sequence[Message], tools: Sequence[Any] | None = None) -> str:
    """Return a conversation without a template: ``role: content`` lines, then ``assistant:``.

    Tools come first, as JSON. Chat templates put them there too, so requests with the same tools
    share them.
    """
    lines = "".join(f"{m['role']}: {m['content']}\n" for m in messages)
    return f"{json.dumps(tools, ensure_ascii=False) if tools else ''}{lines}assistant:"


def whole(text: str) -> str:
    """Replace each lone surrogate, which JSON strings may have, with a question mark."""
    return text.encode(errors="replace").decode()


class BytesTokenizer:
    """Counts every N bytes of UTF-8 as a token; equal pieces have equal ids."""

    has_template = False

    def __init__(self, size: int) -> None:
        self.label = f"bytes:{size}, an approximation: {size} bytes of UTF-8 are a token"
        self._size = size
        self._ids: dict[bytes, int] = {}

    def chat_text(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> str:
        """See `plain_chat`."""
        return plain_chat(messages, tools)

    def encode(self, texts: Sequence[str], *, chat: bool) -> list[Int32Array]:
        """Return one id per N bytes of a text; the last piece may be shorter."""
        pieces = self._words if self._size == 4 else self._pieces
        return [pieces(text.encode(errors="replace")) for text in texts]

    def unknown_tokens(self, ids: Int32Array) -> int:
        """Return 0, because every byte is known."""
        return 0

    def _pieces(self, data: bytes) -> Int32Array:
        size, ids = self._size, self._ids
        pieces = (data[i : i + size] for i in range(0, len(data), size))
        return np.array([ids.setdefault(p, len(ids)) for p in pieces], dtype=np.int32)

    def _words(self, data: bytes) -> Int32Array:
        """Encode four bytes at a time.

        Four ASCII bytes are their own id, with bit 7 clear; all other ids have bit 7 set. This is a
        hundred times as fast as a dictionary, which matters because a batch file can have a
        gigabyte.
        """
        words = np.frombuffer(data + _NOT_UTF8 * (-len(data) % 4), "<u4")
        odd = np.flatnonzero(words & _HIGH_BITS)
        if len(odd):
            ids = self._ids
            raw = [word.to_bytes(4, "little") for word in words[odd].tolist()]
            rank = np.array([ids.setdefault(word, len(ids)) for word in raw], dtype=np.uint32)
            words = words.copy()
            words[odd] = (rank >> 7 << 8) | 0x80 | (rank & 0x7F)
        return words.view(np.int32)


class ModelTokenizer:
    """A ``tokenizers`` encoder, with the chat template of the model if it can be rendered."""

    def __init__(
        self,
        encoder: Any,
        unknown: int | None,
        render: "Render | None",
        template: str,
        name: str,
    ) -> None:
        self._name = name
        self.label = f"{name}, {template}"
        self._encoder = encoder
        self.has_template = render is not None
        self._unknown = unknown
        self._render = render

    def chat_text(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> str:
        """Render the template of the model, or without one, return `plain_chat`."""
        render = self._render or plain_chat
        return render(messages, tools)

    def encode(self, texts: Sequence[str], *, chat: bool) -> list[Int32Array]:
        """Encode; add the special tokens unless a rendered template already has them."""
        special = not (chat and self._render is not None)
        try:
            encoded = self._encoder.encode_batch(
                [whole(text) for text in texts], add_special_tokens=special
            )
        except Exception as e:  # the package raises bare Exception
            raise InputError.saying("tokenizer", f"{self._name} cannot encode: {e}") from e
        return [np.array(one.ids, dtype=np.int32) for one in encoded]

    def unknown_tokens(self, ids: Int32Array) -> int:
        """Return how many ids are the unknown token of the file."""
        return 0 if self._unknown is None else int(np.count_nonzero(ids == self._unknown))


Render = Callable[[Sequence[Message], Sequence[Any] | None], str]


def _unknown_id(file: Path) -> int | None:
    """Return the id of the unknown token, or None if the file has none."""
    model = _json_object(file).get("model") or {}
    if isinstance(model.get("unk_id"), int):  # Unigram
        return int(model["unk_id"])
    vocabulary, token = model.get("vocab"), model.get("unk_token")
    return vocabulary.get(token) if isinstance(vocabulary, dict) else None


def _chat_template(folder: Path) -> tuple[Render | None, str]:
    """Return a renderer of the chat template in the folder (or None) and a description."""
    config, file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    settings: dict[str, Any] = {}
    if config.is_file():
        settings = _json_object(config)
    source = _text(file) if file.is_file() else _named(settings.get("chat_template"))
    if source is None:
        return None, "no chat template: role: content lines"
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None, "chat template not used (jinja2 is not installed): role: content lines"

    def fail(message: str) -> None:
        raise TemplateError(message)

    where = file if file.is_file() else config
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals.update(raise_exception=fail, strftime_now=_TODAY.strftime)
    environment.filters["tojson"] = _json_text
    special = {k: _special(settings.get(k)) for k in ("bos_token", "eos_token", "pad_token")}
    try:
        template = environment.from_string(source)
    except (TemplateError, ValueError) as e:  # also a number of more than 4,300 digits
        raise InputError.saying(where, f"chat_template: {e}", "a Jinja template") from e

    def render(messages: Sequence[Message], tools: Sequence[Any] | None) -> str:
        try:
            text = template.render(
                messages=messages, tools=tools, add_generation_prompt=True, **special
            )
        except Exception as e:  # a template is a program, which can fail in any way
            raise InputError.saying(where, f"chat_template: {e}") from e
        return str(text)

    return render, "its chat template"


def _text(file: Path) -> str:
    try:
        return read_text(file)
    except UnicodeDecodeError as e:
        raise InputError.saying(file, "not UTF-8", "text in UTF-8") from e


def _json_object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(_text(file))
    except json.JSONDecodeError as e:
        raise InputError(f"{file}:{e.lineno}", f"bad JSON: {e.msg}", "a JSON file") from e
    except (ValueError, RecursionError) as e:  # also a number of more than 4,300 digits
        if isinstance(e, InputError):
            raise
        raise InputError.saying(file, f"bad JSON: {e}", "a JSON file") from e
    if not isinstance(found, dict):
        raise InputError(file, type(found).__name__, "a JSON object")
    return found


def _named(template: object) -> str | None:
    """Return the template, or the default one if there are several named ones."""
    if isinstance(template, list):
        named = [t for t in template if isinstance(t, dict)]
        template = next((t.get("template") for t in named if t.get("name") == "default"), None)
    return template if isinstance(template, str) else None


def _json_text(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _special(token: object) -> str:
    """Return the text of a special token, which is a string or an object with ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""
