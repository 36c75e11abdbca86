"""Text to token ids: a ``tokenizers`` file or model folder, or a stated number of bytes a token."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from bssim.errors import InputError


class Tokenizer(Protocol):
    """Turns the prompts of a batch file into token ids."""

    @property
    def label(self) -> str:
        """What the notes say about it."""

    def encode_text(self, text: str) -> list[int]:
        """Return the ids of a completion prompt."""

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Return the ids of a conversation that the model is to continue."""


def open_tokenizer(spec: str) -> Tokenizer:
    """Return the tokenizer of ``bytes:N``, of a tokenizer.json, or of a model folder.

    Raises InputError if it cannot be had, naming the extra to install where that is the reason.
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
    return ModelTokenizer(encoder, *_chat_template(file.parent), label=str(path.name))


def plain_chat(messages: list[dict[str, str]]) -> str:
    """Write a conversation without a template: ``role: content`` lines, then ``assistant:``."""
    return "".join(f"{m['role']}: {m['content']}\n" for m in messages) + "assistant:"


def whole(text: str) -> str:
    """Return the text with a question mark for half a surrogate pair, which JSON can hold alone."""
    return text.encode(errors="replace").decode()


class BytesTokenizer:
    """Counts every N bytes of UTF-8 as a token; equal bytes at equal places are equal ids."""

    def __init__(self, size: int) -> None:
        self.label = f"bytes:{size}, an approximation: {size} bytes of UTF-8 are a token"
        self._size = size
        self._ids: dict[bytes, int] = {}

    def encode_text(self, text: str) -> list[int]:
        """Return one id for each N bytes, the last for what is left."""
        data, size, ids = whole(text).encode(), self._size, self._ids
        return [ids.setdefault(data[i : i + size], len(ids)) for i in range(0, len(data), size)]

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Encode the conversation as :func:`plain_chat` writes it."""
        return self.encode_text(plain_chat(messages))


class ModelTokenizer:
    """A ``tokenizers`` encoder with the model's chat template where it can be rendered."""

    def __init__(
        self,
        encoder: Any,
        render: Callable[[list[dict[str, str]]], str] | None,
        template: str,
        *,
        label: str,
    ) -> None:
        self.label = f"{label}, {template}"
        self._encoder = encoder
        self._render = render

    def encode_text(self, text: str) -> list[int]:
        """Encode with the special tokens that the file adds."""
        return list(self._encoder.encode(whole(text)).ids)

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        """Encode the rendered template, which has its special tokens, else the plain form."""
        if self._render is None:
            return self.encode_text(plain_chat(messages))
        text = whole(self._render(messages))
        return list(self._encoder.encode(text, add_special_tokens=False).ids)


def _chat_template(folder: Path) -> tuple[Callable[[list[dict[str, str]]], str] | None, str]:
    """Return a renderer of the folder's chat template, None without one, and what was found."""
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None, "no chat template: role: content lines"
    try:
        settings = json.loads(config.read_text("utf-8"))
    except json.JSONDecodeError as e:
        raise InputError(f"{config}:{e.lineno}", f"bad JSON: {e.msg}", "a JSON file") from e
    source = settings.get("chat_template")
    if not isinstance(source, str):
        return None, "no chat template: role: content lines"
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None, "chat template not used (jinja2 is not installed): role: content lines"

    def fail(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = fail
    special = {k: _special(settings.get(k)) for k in ("bos_token", "eos_token", "pad_token")}
    try:
        template = environment.from_string(source)
    except TemplateError as e:
        raise InputError.saying(config, f"chat_template: {e}", "a Jinja template") from e

    def render(messages: list[dict[str, str]]) -> str:
        try:
            text = template.render(messages=messages, add_generation_prompt=True, **special)
        except TemplateError as e:
            raise InputError.saying(config, f"chat_template: {e}") from e
        return str(text)

    return render, "its chat template"


def _special(token: object) -> str:
    """Return a special token's text; configs hold it plain or as an object with ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""
