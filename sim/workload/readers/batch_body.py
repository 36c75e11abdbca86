"""The body of a batch file line: its conversation, its cap, and whether bssim can price it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bssim.sim.workload.readers.json_lines import whole_number
from bssim.sim.workload.readers.source_text import SourceText


@dataclass(frozen=True, slots=True)
class Unpriceable:
    """Why bssim cannot price a line."""

    kind: str
    """The reason in a few words, the same for all lines with this reason."""
    field: str
    found: object
    expected: str


def unpriceable(row: Mapping[str, Any], body: Mapping[str, Any]) -> Unpriceable | None:
    """Return why bssim cannot price a line, or None if it can.

    This finds kinds of lines that bssim does not support. The reader finds invalid lines.
    """
    url = row.get("url")
    path = url.rstrip("/").rpartition("/v1")[2] if isinstance(url, str) else ""
    if path not in ("", "/chat/completions", "/completions"):
        return Unpriceable(
            f"url /v1{path}",
            "url",
            url,
            "/v1/chat/completions or /v1/completions: bssim prices text generation",
        )
    if body.get("n") not in (None, 1):
        return Unpriceable(
            "n is not 1",
            "body.n",
            body["n"],
            "1: write the line n times without n, each with its own custom_id; "
            "the shared prompt is cached",
        )
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int | float):
        return Unpriceable("several prompts", "body.prompt", prompt, "one prompt per line")
    messages = body.get("messages")
    for i, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and not isinstance(part.get("text"), str):
                return Unpriceable(
                    f"{kind} parts", f"body.messages[{i}].content", content, "text parts only"
                )
    return None


def cap_of(source: SourceText, line: int, body: Mapping[str, Any]) -> int | None:
    """Return the most tokens that a request may generate, or None without a cap."""
    for field in ("max_completion_tokens", "max_tokens"):
        if body.get(field) is not None:
            return whole_number(source, line, f"body.{field}", body[field])
    return None


def conversation(source: SourceText, line: int, value: object) -> list[dict[str, str]]:
    """Return chat messages as plain text: join the parts and append tool calls as JSON."""
    if not isinstance(value, list) or not value:
        raise source.error(line, "body.messages", value, "a list of messages, or body.prompt")
    messages = []
    for i, message in enumerate(value):
        field = f"body.messages[{i}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise source.error(line, field, message, "an object with role and content")
        content, calls = message.get("content"), message.get("tool_calls")
        if content is None and calls:
            content = ""
        if isinstance(content, list):
            parts = [part.get("text") if isinstance(part, dict) else None for part in content]
            if not all(isinstance(part, str) for part in parts):
                raise source.error(line, f"{field}.content", content, "text parts only")
            content = "".join(str(part) for part in parts)
        if not isinstance(content, str):
            raise source.error(line, f"{field}.content", content, "a text")
        if calls:
            content += json.dumps(calls, ensure_ascii=False)
        messages.append({"role": message["role"], "content": content})
    return messages
