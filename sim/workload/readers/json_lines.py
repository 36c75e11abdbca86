"""JSON-lines traces: Mooncake block hashes and token ids."""

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.readers.source_text import Rows, SourceText
from bssim.sim.workload.tree_builders import flatten, from_block_hashes, from_token_ids
from bssim.sim.workload.workload import Workload

MOONCAKE_BLOCK_TOKENS = 512
"""Tokens per hashed block in the Mooncake traces (kvcache-ai/Mooncake, FAST25-release)."""

_BLOCK_SIZES = [1 << bits for bits in range(17)]
"""Other possible sizes; most tools use 16."""
_MAX_TOKEN_ID = int(np.iinfo(np.int32).max)
_MAX_INT = int(np.iinfo(np.int64).max)


_TEXT = re.compile(r"\S")


def objects(source: SourceText) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for every line that is not blank; InputError for bad JSON."""
    number = end = 0
    while end < len(source.text):
        # One line at a time, because a list of all lines would hold a large file twice.
        found = _TEXT.search(source.text, end)
        if found is None:
            return
        number += source.text.count("\n", end, found.start())
        start, number = end, number + 1
        if source.text[start] in "\r\n":  # blank lines, perhaps millions
            start = source.text.rfind("\n", start, found.start()) + 1
        end = source.text.find("\n", start) + 1 or len(source.text)
        line = source.text[start:end]
        if not line.strip():
            continue
        try:
            value = json.loads(line.rstrip("\r\n"))  # after a newline, columns start at 1 again
        except json.JSONDecodeError as e:
            raise InputError(
                f"{source.path}:{number}",
                f"bad JSON at column {e.colno} ({e.msg})",
                "one object per line",
            ) from e
        except ValueError as e:  # Python refuses integers of more than 4,300 digits
            raise InputError(
                f"{source.path}:{number}", "a number with too many digits", "one object per line"
            ) from e
        except RecursionError as e:
            raise InputError(
                f"{source.path}:{number}", "JSON nested too deeply", "one object per line"
            ) from e
        if not isinstance(value, dict):
            raise source.error(number, "line", value, "a JSON object")
        yield number, value


def first_object(source: SourceText) -> dict[str, Any]:
    """Return the object on the first line that is not blank."""
    return next(objects(source))[1]


def whole_number(source: SourceText, line: int, field: str, value: object) -> int:
    """Check and return a whole number, 0 or more (and below 2^53, as in a CSV)."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise source.error(line, field, value, "a whole number, 0 or more")
    return value


def id_list(
    source: SourceText, line: int, field: str, value: object, *, most: int = _MAX_TOKEN_ID
) -> npt.NDArray[np.int64]:
    """Check and return a list of whole numbers from 0 to ``most``, as an array."""
    try:
        ids = np.array(value if isinstance(value, list) else None)
    except ValueError:  # lists of different lengths inside
        ids = np.array(None)
    if ids.size == 0:
        ids = ids.astype(np.int64)
    if (
        ids.ndim != 1
        or ids.dtype != np.int64
        or (ids.size and not 0 <= ids.min() <= ids.max() <= most)
    ):
        raise source.error(line, field, value, f"a list of whole numbers, 0 to {most}")
    return ids


def unique_ids(source: SourceText, ids: list[tuple[int, object]], field: str) -> list[str]:
    """Check and return ids, which must be unique strings or numbers."""
    seen: dict[str, int] = {}
    for line, value in ids:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise source.error(line, field, value, "a string")
        if str(value) in seen:
            expected = f"a name used once (line {seen[str(value)]} has it too)"
            raise source.error(line, field, value, expected)
        seen[str(value)] = line
    return list(seen)


def read_mooncake(source: SourceText) -> Workload:
    """Read a Mooncake trace: input_length, output_length, hash_ids, optional timestamp in ms.

    A hash identifies a block and all tokens before it. The last block may be shorter. Blocks have
    512 tokens, or the size that follows from the prompts and their numbers of blocks.
    """
    prompts, outputs, times, hashes, lines = [], [], [], [], []
    for line, row in objects(source):
        prompt = whole_number(source, line, "input_length", row.get("input_length"))
        blocks = id_list(source, line, "hash_ids", row.get("hash_ids"), most=_MAX_INT)
        lines.append(line)
        prompts.append(prompt)
        hashes.append(blocks)
        outputs.append(whole_number(source, line, "output_length", row.get("output_length")))
        time = row.get("timestamp")
        if isinstance(time, int | float) and not abs(time) <= sys.float_info.max:
            raise source.error(line, "timestamp", time, "a finite number of milliseconds")
        times.append(time)
    prompt_tokens = np.array(prompts, dtype=np.int64)
    flat, offsets = flatten(hashes)
    size = _block_tokens(source, lines, prompt_tokens, np.diff(offsets))
    notes = () if size == MOONCAKE_BLOCK_TOKENS else (f"{source.name}: blocks of {size} tokens",)
    tree, node = from_block_hashes(flat, offsets, block_tokens=size, prompt_tokens=prompt_tokens)
    arrival = None
    if all(isinstance(t, int | float) for t in times):
        arrival = np.array(times, dtype=np.float64) / 1000
        arrival -= arrival.min()
    return Rows(
        prompt_tokens=prompt_tokens,
        output_tokens=np.array(outputs, dtype=np.int64),
        tree=tree,
        node=node,
        arrival_s=arrival,
        notes=notes,
    ).workload(source)


def _block_tokens(
    source: SourceText,
    lines: list[int],
    prompt: npt.NDArray[np.int64],
    blocks: npt.NDArray[np.int64],
) -> int:
    """Return the block size with which every prompt of a Mooncake trace has its blocks.

    512 if possible, else the only possible power of two. ``lines`` are line numbers; the other
    arrays have the shape (requests,). Raises InputError if there is no such size.
    """
    usual = -(-prompt // MOONCAKE_BLOCK_TOKENS)
    wrong = np.flatnonzero(blocks != usual)
    if not len(wrong):
        return MOONCAKE_BLOCK_TOKENS
    fitting = [size for size in _BLOCK_SIZES if np.array_equal(blocks, -(-prompt // size))]
    if len(fitting) == 1:
        return fitting[0]
    row = int(wrong[0])
    raise source.error(
        lines[row],
        "hash_ids",
        int(blocks[row]),
        f"{usual[row]} blocks of 512 for {prompt[row]} tokens, or blocks of another power of two "
        "in all lines",
    )


def read_token_ids(source: SourceText) -> Workload:
    """Read token-id JSON lines: ``{"id", "prompt_token_ids", "output_tokens", "priority"}``.

    ``id`` and ``priority`` (lower first, default 0) are optional. Either all lines have an id or
    none has.
    """
    prompts, outputs, priorities = [], [], []
    ids: list[tuple[int, object]] = []
    for line, row in objects(source):
        tokens = id_list(source, line, "prompt_token_ids", row.get("prompt_token_ids"))
        prompts.append(tokens.astype(np.int32))
        outputs.append(whole_number(source, line, "output_tokens", row.get("output_tokens")))
        if "id" in row:
            ids.append((line, row["id"]))
        if len(ids) not in (0, len(prompts)):
            raise source.error(line, "id", row.get("id"), "an id in every line or in none")
        priority = row.get("priority", 0)
        if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > _MAX_INT:
            raise source.error(line, "priority", priority, "a whole number")
        priorities.append(priority)
    flat, offsets = flatten(prompts)
    tree, node = from_token_ids(flat, offsets)
    return Rows(
        prompt_tokens=np.diff(offsets),
        output_tokens=np.array(outputs, dtype=np.int64),
        tree=tree,
        node=node,
        request_ids=unique_ids(source, ids, "id") if ids else None,
        priority=np.array(priorities, dtype=np.int64) if any(priorities) else None,
    ).workload(source)
