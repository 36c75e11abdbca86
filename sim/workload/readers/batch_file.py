"""OpenAI batch files: one ``{"custom_id", "body": {...}}`` per line; prompts are text or ids."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from bssim.errors import InputError
from bssim.sim.workload.readers.batch_body import (
    Unpriceable,
    cap_of,
    conversation,
    unpriceable,
)
from bssim.sim.workload.readers.json_lines import id_list, objects, unique_ids
from bssim.sim.workload.readers.options import AS_WRITTEN, ReaderOptions
from bssim.sim.workload.readers.source_text import Rows, SourceText, read_text
from bssim.sim.workload.readers.tokenizer import MOST_UNKNOWN, Tokenizer, open_tokenizer
from bssim.sim.workload.tree_builders import flatten, from_token_ids
from bssim.sim.workload.workload import Workload
from bssim.wording import counted

IntArray = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]

ENCODE_AT_ONCE = 1024
"""Texts per call of the tokenizer, which encodes them on all cores."""
OUTPUTS_ARE_CAPS = "outputs taken as max_completion_tokens or max_tokens, an upper bound"
"""Ends a note of each workload that comes from a batch file."""


@dataclass(frozen=True, eq=False)
class BatchFile:
    """A batch file: its unchanged lines, and the pool of their requests."""

    path: str
    lines: Sequence[str]
    """Every line that is not blank, without its newline, in file order."""
    ids: tuple[str, ...]
    """The unique ``custom_id`` of each line."""
    models: Mapping[str, int]
    """``model`` in the bodies -> number of lines."""
    completions: int
    """Number of requests with a prompt instead of messages (for the completions endpoint)."""
    unpriceable: Mapping[int, str]
    """Line index -> why bssim cannot price the line; such lines are not in the pool."""
    capped: npt.NDArray[np.bool_]
    """Shape (lines,): whether the line caps its output; if not, ``max_tokens`` is the default."""
    workload: Workload
    """The other requests, in file order, without those that have no prompt or no output."""
    prompts: Mapping[str, Int32Array] | None = None
    """``custom_id`` -> prompt tokens of each line that bssim can price, if they were kept."""

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> number of lines that bssim cannot price for it."""
        return dict(Counter(self.unpriceable.values()))


def read_batch_file(
    path: str | Path,
    options: ReaderOptions = AS_WRITTEN,
    *,
    on_unsupported: str = "error",
    keep_prompts: bool = False,
) -> BatchFile:
    """Read a batch file, plain or gzip.

    Args:
        path: the file.
        options: its tokenizer and its default cap apply.
        on_unsupported: for lines that bssim cannot price (image parts, ``n`` above 1, embeddings,
            ...): ``error`` refuses the file, ``end`` leaves such lines out of the pool.
        keep_prompts: whether to keep the token ids of the prompts.

    Raises InputError naming file, line, field, the value found and what was expected.
    """
    file = Path(path)
    return parse_batch(
        SourceText(
            path=str(path),
            name=file.name.split(".")[0],
            text=read_text(file),
            options=options,
            on_unsupported=on_unsupported,
        ),
        keep_prompts=keep_prompts,
    )


def read_openai_batch(source: SourceText) -> Workload:
    """Return only the pool of a batch file; see `parse_batch`."""
    return parse_batch(source).workload


def parse_batch(source: SourceText, *, keep_prompts: bool = False) -> BatchFile:
    """Read the lines and the pool of a batch file.

    A request has ``body.messages`` or ``body.prompt``, and a cap: ``body.max_completion_tokens`` or
    ``max_tokens``. Batch files have no output lengths, so the cap of a request is used as its
    output length, which is an upper bound. Raises InputError for a line without a cap if
    there is no default, and for text without a tokenizer.
    """
    prompts = _Prompts(source)
    ids: list[tuple[int, object]] = []
    models: Counter[str] = Counter()
    completions = 0
    left_out: dict[int, str] = {}
    caps: list[int | None] = []
    for at, (line, row) in enumerate(objects(source)):
        ids.append((line, row.get("custom_id")))
        body = row.get("body")
        if not isinstance(body, dict):
            raise source.error(line, "body", body, "an object with messages or prompt")
        if body.get("model") is not None:
            models[str(body["model"])] += 1
        reason = unpriceable(row, body)
        if reason is not None:
            if source.on_unsupported == "error":
                raise _refused(source, line, reason)
            left_out[at] = reason.kind
            continue
        prompts.add(line, body)
        completions += "prompt" in body
        caps.append(_cap(source, line, body))
    if ids and not caps:
        reasons = "; ".join(
            f"{kind}: {count:,}" for kind, count in Counter(left_out.values()).items()
        )
        raise InputError.saying(source.path, f"no line that bssim can price ({reasons})")
    names = unique_ids(source, ids, "custom_id")
    kept = np.array([at for at in range(len(ids)) if at not in left_out], dtype=np.int64)
    capped = np.zeros(len(ids), np.bool_)
    capped[kept] = [cap is not None for cap in caps]
    numbers = [line for line, _ in ids]
    priced = [names[at] for at in kept.tolist()]
    flat, offsets = flatten(prompts.finish())
    kept_prompts = dict(zip(priced, prompts.ids, strict=True)) if keep_prompts else None
    prompts.ids.clear()  # or the tree would be built beside two copies of them
    return BatchFile(
        path=source.path,
        lines=_Lines(source.text, numbers),
        ids=tuple(names),
        models=models,
        completions=completions,
        unpriceable=left_out,
        capped=capped,
        workload=_pool(source, (flat, offsets), prompts.notes(), priced, caps, left_out),
        prompts=kept_prompts,
    )


def check_first_line(source: SourceText) -> None:
    """Raise InputError if the first line needs a tokenizer or a cap that the options do not give.

    A file with such a first line fails as a whole, so that a sweep need not run to find out.
    """
    line, row = next(objects(source))
    body = row.get("body")
    if not isinstance(body, dict) or unpriceable(row, body) is not None:
        return
    _Prompts(source).check(body)
    _cap(source, line, body)


def _cap(source: SourceText, line: int, body: Mapping[str, Any]) -> int | None:
    """Return the cap of a line, or None if the default applies; InputError without both."""
    cap = cap_of(source, line, body)
    if cap is None and source.options.default_output_tokens is None:
        raise source.error(
            line,
            "body.max_completion_tokens",
            None,
            "a cap there or in max_tokens, or --default-output-tokens N: a batch file has no "
            "output lengths",
        )
    return cap


def _pool(
    source: SourceText,
    prompts: tuple[npt.NDArray[np.integer], IntArray],
    prompt_notes: list[str],
    ids: list[str],
    caps: list[int | None],
    left_out: Mapping[int, str],
) -> Workload:
    """Return the requests of a batch file as a workload, with notes for the user.

    ``prompts``: the token ids of all prompts end to end, and the start of each.
    """
    default = source.options.default_output_tokens
    outputs = np.array([default if cap is None else cap for cap in caps], dtype=np.int64)
    flat, offsets = prompts
    tree, node = from_token_ids(flat, offsets)
    notes = [f"{source.name}: {OUTPUTS_ARE_CAPS}"]
    uncapped = sum(cap is None for cap in caps)
    if uncapped:
        notes.append(
            f"{source.name}: {counted(uncapped, 'request')} without a cap assumed to generate "
            f"{default} tokens (--default-output-tokens)"
        )
    notes += prompt_notes
    for kind, count in Counter(left_out.values()).items():
        notes.append(f"{source.name}: {counted(count, 'line')} left out: {kind}")
    return Rows(
        prompt_tokens=np.diff(offsets),
        output_tokens=outputs,
        tree=tree,
        node=node,
        request_ids=ids,
        max_tokens=outputs,
        notes=tuple(notes),
    ).workload(source)


class _Prompts:
    """The prompts of a file as token ids; texts are encoded in groups."""

    def __init__(self, source: SourceText) -> None:
        self._source = source
        self._tokenizer: Tokenizer | None = None
        self.ids: list[Int32Array] = []
        """The ids of each prompt, complete after `finish`."""
        self._waiting: dict[bool, list[tuple[int, str]]] = {True: [], False: []}
        self._with_tools = 0
        self._tokens = self._unknown = 0

    def add(self, line: int, body: Mapping[str, Any]) -> None:
        """Add the prompt of a line."""
        prompt = body.get("prompt")
        if isinstance(prompt, list):
            self.ids.append(id_list(self._source, line, "body.prompt", prompt).astype(np.int32))
            return
        if isinstance(prompt, str):
            self._wait(prompt, chat=False)
            return
        messages = conversation(self._source, line, body.get("messages"))
        tools = body.get("tools") or None
        self._with_tools += tools is not None
        self._wait(self.tokenizer.chat_text(messages, tools), chat=True)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, which is opened for the first text."""
        if self._tokenizer is None:
            if self._source.options.tokenizer is None:
                raise InputError(
                    self._source.path,
                    "text prompts but no tokenizer",
                    "--tokenizer (in a sweep file, tokenizer:) with a tokenizer.json, a model "
                    "folder, or bytes:4, which counts four bytes as a token",
                )
            self._tokenizer = open_tokenizer(self._source.options.tokenizer)
        return self._tokenizer

    def check(self, body: Mapping[str, Any]) -> None:
        """Raise InputError if the prompt of a line is text and there is no tokenizer for it."""
        if not isinstance(body.get("prompt"), list):
            _ = self.tokenizer

    def _wait(self, text: str, *, chat: bool) -> None:
        self._waiting[chat].append((len(self.ids), text))
        self.ids.append(np.zeros(0, np.int32))
        if len(self._waiting[chat]) >= ENCODE_AT_ONCE:
            self._encode(chat)

    def _encode(self, chat: bool) -> None:
        waiting, self._waiting[chat] = self._waiting[chat], []
        encoded = self.tokenizer.encode([text for _, text in waiting], chat=chat)
        for (at, _), ids in zip(waiting, encoded, strict=True):
            self._tokens += len(ids)
            self._unknown += self.tokenizer.unknown_tokens(ids)
            self.ids[at] = ids

    def finish(self) -> list[Int32Array]:
        """Return the ids of every prompt.

        Raises InputError if the tokenizer does not know too many of the tokens.
        """
        for chat, waiting in self._waiting.items():
            if waiting:
                self._encode(chat)
        if self._unknown > MOST_UNKNOWN * self._tokens:
            raise InputError.saying(
                self._source.path,
                f"tokenizer {self._source.options.tokenizer} maps "
                f"{self._unknown / self._tokens:.0%} of {self._tokens:,} tokens to its unknown "
                "token",
                f"at most {MOST_UNKNOWN:.0%}: is it the tokenizer of the model?",
            )
        return self.ids

    def notes(self) -> list[str]:
        """Return how text was turned into tokens, and what was assumed."""
        if self._tokenizer is None:
            return []
        name, notes = self._source.name, []
        notes.append(f"{name}: prompts tokenised with {self._tokenizer.label}")
        if self._with_tools and not self._tokenizer.has_template:
            notes.append(
                f"{name}: tools of {counted(self._with_tools, 'request')} counted as their JSON "
                "text, an approximation"
            )
        return notes


class _Lines(Sequence[str]):
    """Some lines of a text, cut out when they are asked for: the text may have gigabytes."""

    def __init__(self, text: str, numbers: list[int]) -> None:
        """``numbers``: line numbers from 1, ascending."""
        self._text = text
        self._bounds: list[tuple[int, int]] = []
        start, number = 0, 1
        for wanted in numbers:
            while number < wanted:
                start, number = text.index("\n", start) + 1, number + 1
            end = text.find("\n", start)
            self._bounds.append((start, end if end >= 0 else len(text)))

    def __len__(self) -> int:
        return len(self._bounds)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self._text[start:end] for start, end in self._bounds[at]]
        start, end = self._bounds[at]
        return self._text[start:end]


def _refused(source: SourceText, line: int, reason: Unpriceable) -> InputError:
    return source.error(
        line,
        reason.field,
        reason.found,
        f"{reason.expected} (--on-unsupported end writes such lines at the end, unpriced)",
    )
