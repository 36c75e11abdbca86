"""OpenAI batch files: one ``{"custom_id", "body": {...}}`` a line, prompts as text or token ids."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.readers.json_lines import id_list, objects, unique_ids, whole_number
from bssim.sim.workload.readers.source_text import Rows, SourceText
from bssim.sim.workload.readers.tokenizer import Tokenizer, open_tokenizer
from bssim.sim.workload.tree_builders import flatten, from_token_ids
from bssim.sim.workload.workload import Workload
from bssim.wording import counted


def read_openai_batch(source: SourceText) -> Workload:
    """Read a batch file: body.messages or body.prompt, body.max_completion_tokens or max_tokens.

    Such a file does not hold output lengths. Without ``source.output_tokens`` a request's cap is
    taken for its output, an upper bound; with it, the smaller of the two. Raises InputError where
    neither is there, for text without a tokenizer, and for several outputs a line (``n``).
    """
    prompts: list[npt.NDArray[np.int64] | list[int]] = []
    ids: list[tuple[int, object]] = []
    caps: list[int | None] = []
    outputs: list[int] = []
    with_tools = 0
    tokenizer: Tokenizer | None = None
    for line, row in objects(source):
        body = row.get("body")
        if not isinstance(body, dict):
            raise source.error(line, "body", body, "an object with messages or prompt")
        ids.append((line, row.get("custom_id")))
        if body.get("n") not in (None, 1):
            raise source.error(
                line,
                "body.n",
                body["n"],
                "1: write the line n times without n, each with a custom_id of its own; "
                "what their prompts share is cached",
            )
        prompt, messages = body.get("prompt"), body.get("messages")
        if isinstance(prompt, list):
            prompts.append(id_list(source, line, "body.prompt", prompt))
        elif isinstance(prompt, str):
            tokenizer = tokenizer or _tokenizer(source)
            prompts.append(tokenizer.encode_text(prompt))
        else:
            conversation = _messages(source, line, messages)
            tokenizer = tokenizer or _tokenizer(source)
            ids_of_chat = tokenizer.encode_chat(conversation)
            if body.get("tools"):
                # In front, where chat templates put tools: requests with the same ones share them.
                ids_of_chat = tokenizer.encode_text(_json_text(body["tools"])) + ids_of_chat
                with_tools += 1
            prompts.append(ids_of_chat)
        cap = _cap(source, line, body)
        if cap is None and source.output_tokens is None:
            raise source.error(
                line,
                "body.max_completion_tokens",
                None,
                "a cap there or in max_tokens, or --output-tokens N: a batch file has no output "
                "lengths",
            )
        caps.append(cap)
        outputs.append(min(c for c in (cap, source.output_tokens) if c is not None))
    flat, offsets = flatten(prompts)
    tree, node = from_token_ids(flat, offsets)
    if source.output_tokens is None:
        note = "outputs taken as max_completion_tokens or max_tokens, an upper bound"
    else:
        note = f"outputs taken as {source.output_tokens} tokens or the request's cap if lower"
    notes = [f"{source.name}: {note}"]
    if tokenizer is not None:
        notes.append(f"{source.name}: prompts tokenised with {tokenizer.label}")
    if with_tools:
        notes.append(
            f"{source.name}: tools of {counted(with_tools, 'request')} taken as their JSON text, "
            "an approximation"
        )
    known = [c for c in caps if c is not None]
    return Rows(
        prompt_tokens=np.diff(offsets),
        output_tokens=np.array(outputs, dtype=np.int64),
        tree=tree,
        node=node,
        request_ids=unique_ids(source, ids, "custom_id"),
        max_tokens=np.array(known, dtype=np.int64) if len(known) == len(caps) else None,
        notes=tuple(notes),
    ).workload(source)


def _tokenizer(source: SourceText) -> Tokenizer:
    if source.tokenizer is None:
        raise InputError(
            source.path,
            "prompts as text and no tokenizer",
            "a tokenizer.json, a model folder, or 'bytes:4' to count four bytes as a token",
        )
    return open_tokenizer(source.tokenizer)


def _cap(source: SourceText, line: int, body: dict[str, Any]) -> int | None:
    for field in ("max_completion_tokens", "max_tokens"):
        if body.get(field) is not None:
            return whole_number(source, line, f"body.{field}", body[field])
    return None


def _messages(source: SourceText, line: int, value: object) -> list[dict[str, str]]:
    """Return chat messages with plain text contents: parts joined, tool calls as their JSON."""
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
            content += _json_text(calls)
        messages.append({"role": message["role"], "content": content})
    return messages


def _json_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
