"""CSV traces: Azure, BurstGPT, Vidur, bssim's own format, and the MMLU lengths file."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bssim.errors import InputError
from bssim.sim.workload.prefix_tree import PrefixTree
from bssim.sim.workload.readers.source_text import Rows, SourceText
from bssim.sim.workload.tree_builders import from_groups
from bssim.sim.workload.workload import Workload

_NAME_COLUMNS = ("request_id", "source", "subject")
"""Columns that are text even if every value looks like a number."""

_MMLU_OUTPUT_TOKENS = 2
"""Figure 2 of the paper; the file has no outputs."""


def read_azure(source: SourceText) -> Workload:
    """Read an Azure LLM inference trace: ContextTokens, GeneratedTokens, optional TIMESTAMP."""
    return _read_lengths(source, "ContextTokens", "GeneratedTokens", "TIMESTAMP")


def read_burstgpt(source: SourceText) -> Workload:
    """Read a BurstGPT trace: Request tokens, Response tokens, optional Timestamp in seconds."""
    return _read_lengths(source, "Request tokens", "Response tokens", "Timestamp")


def read_vidur(source: SourceText) -> Workload:
    """Read a Vidur trace: num_prefill_tokens, num_decode_tokens, optional arrived_at."""
    return _read_lengths(source, "num_prefill_tokens", "num_decode_tokens", "arrived_at")


def read_bssim_csv(source: SourceText) -> Workload:
    """Read the CSV that ``bssim workload convert`` writes.

    prompt_tokens and output_tokens are required; request_id, source and max_cached_tokens are
    optional. max_cached_tokens says how many tokens a prompt shares with an earlier row, but not
    with which one. This reader takes the first earlier row of the same source that is long enough.
    So max_cached_tokens, of the pool and of any leading part of it, stays the same, and with it the
    maximal sharing, except for one token per prompt that a longer one extends. The groups may
    differ from those of the workload that was written. Token-id JSON lines keep the tree.
    """
    table = _Table(source, needed=("prompt_tokens", "output_tokens"))
    prompt = table.integers("prompt_tokens")
    n = len(prompt)
    code: npt.NDArray[np.int64] = np.zeros(n, dtype=np.int64)
    names: tuple[str, ...] = (source.name,)
    if "source" in table.columns:
        code, labels = pd.factorize(table.strings("source"))
        names = tuple(str(label) for label in labels)
    tree = node = None
    if "max_cached_tokens" in table.columns:
        cached = table.integers("max_cached_tokens")
        tree, node = _tree_from_hits(table, prompt, cached, code)
    return Rows(
        prompt_tokens=prompt,
        output_tokens=table.integers("output_tokens"),
        tree=tree,
        node=node,
        source=code,
        source_names=names,
        request_ids=table.ids("request_id") if "request_id" in table.columns else None,
    ).workload(source)


def read_mmlu(source: SourceText) -> Workload:
    """Read the MMLU lengths file: subject, prefix_tokens, question_tokens; outputs are 2 tokens.

    The questions of a subject share its prefix, whose length must be the same in all of its rows.
    """
    table = _Table(source, needed=("subject", "prefix_tokens", "question_tokens"))
    group, subjects = pd.factorize(table.strings("subject"))
    prefix = table.integers("prefix_tokens")
    shared = np.zeros(len(subjects), dtype=np.int64)
    shared[group[::-1]] = prefix[::-1]
    table.check(
        "prefix_tokens", prefix, prefix == shared[group], "the prefix of the subject's first row"
    )
    tree, node = from_groups(group, shared)
    prompt = prefix + table.integers("question_tokens")
    return Rows(
        prompt_tokens=prompt,
        output_tokens=np.full(len(prompt), _MMLU_OUTPUT_TOKENS, dtype=np.int64),
        tree=tree,
        node=node,
        notes=(f"{source.name}: outputs set to {_MMLU_OUTPUT_TOKENS} tokens; the file has none",),
    ).workload(source)


def _read_lengths(source: SourceText, prompt: str, output: str, time: str) -> Workload:
    table = _Table(source, needed=(prompt, output))
    arrival, notes = table.times(time) if time in table.columns else (None, ())
    return Rows(
        prompt_tokens=table.integers(prompt),
        output_tokens=table.integers(output),
        arrival_s=arrival,
        notes=notes,
    ).workload(source)


class _Table:
    """The rows of a CSV that are not blank, with their line numbers."""

    def __init__(self, source: SourceText, *, needed: Sequence[str]) -> None:
        self._source = source
        # Blank lines before the header would become one; after it they are kept for line numbers.
        body = source.text.lstrip("\r\n")
        skipped = source.text[: len(source.text) - len(body)].count("\n")
        try:
            with warnings.catch_warnings():
                # Rows longer than the header: without index_col=False their columns would shift.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                # A column of only numbers is parsed as numbers, which is fast; any other keeps its
                # text.
                frame = pd.read_csv(
                    io.StringIO(body),
                    dtype=dict.fromkeys(_NAME_COLUMNS, str),
                    index_col=False,
                    skip_blank_lines=False,
                    keep_default_na=False,
                    low_memory=False,
                )
        except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as e:
            raise InputError.saying(source.path, f"not a table: {e}", "a CSV") from e
        frame.columns = [str(column).strip() for column in frame.columns]
        if not frame.columns.is_unique:  # pandas renames equal names, but not with blanks
            twice = frame.columns[frame.columns.duplicated()][0]
            raise InputError.saying(
                f"{source.path}:{skipped + 1}", f"column {twice!r} is given twice", "once"
            )
        self.columns = set(frame.columns)
        missing = [column for column in needed if column not in self.columns]
        if missing:
            raise InputError(
                f"{source.path}:{skipped + 1}",
                f"columns {', '.join(frame.columns)}",
                f"also {', '.join(missing)}",
            )
        blank = np.zeros(len(frame), dtype=bool)
        if not any(pd.api.types.is_integer_dtype(dtype) for dtype in frame.dtypes):
            # A blank line becomes an empty first field and missing others. A column of integers
            # has no missing fields, so there are no blank lines then.
            blank = (frame.isna() | (frame == "")).all(axis=1).to_numpy(dtype=bool)
        self._frame = frame[~blank]
        self._lines = np.flatnonzero(~blank) + skipped + 2
        if not len(self._lines):
            raise InputError(source.path, "a header and no rows", "at least one")

    def strings(self, column: str) -> "pd.Series[str]":
        """Return a column as strings without surrounding blanks."""
        return self._frame[column].astype(str).fillna("").str.strip()

    def integers(self, column: str) -> npt.NDArray[np.int64]:
        """Return a column of whole numbers, 0 or more."""
        found = self._frame[column]
        values = self._numbers(column)
        good = (values >= 0) & (values == np.floor(values)) & (values < 2**53)
        self.check(column, found.array, good, "a whole number, 0 or more")
        return values.astype(np.int64)

    def _numbers(self, column: str) -> npt.NDArray[np.float64]:
        """Return a column as numbers, NaN where a field is not a number."""
        found = self._frame[column]
        is_number = pd.api.types.is_numeric_dtype(found.dtype)
        if not is_number or pd.api.types.is_bool_dtype(found.dtype):
            found = pd.to_numeric(self.strings(column), errors="coerce")
        return found.to_numpy(dtype=np.float64)

    def ids(self, column: str) -> list[str]:
        """Return a column of unique names."""
        text = self.strings(column)
        self.check(
            column, text.to_numpy(dtype=object), ~text.duplicated().to_numpy(), "a name used once"
        )
        return [str(value) for value in text]

    def times(self, column: str) -> tuple[npt.NDArray[np.float64] | None, tuple[str, ...]]:
        """Return a column of seconds or dates as seconds since the first, or None and a note."""
        seconds = self._numbers(column)
        found = self._frame[column].array
        self.check(column, found, ~np.isinf(seconds), "a time, or a finite number")
        if np.isnan(seconds).any():
            dates = pd.to_datetime(
                self.strings(column), errors="coerce", format="ISO8601", utc=True
            )
            if dates.isna().any():
                note = (
                    f"{self._source.name}: {column} is not a time in every row; arrivals left out"
                )
                return None, (note,)
            since = (dates - dates.min()) / pd.Timedelta(seconds=1)
            seconds = np.asarray(since, dtype=np.float64)
        return seconds - seconds.min(), ()

    def check(
        self,
        column: str,
        values: Any,
        good: npt.NDArray[np.bool_],
        expected: str,
    ) -> None:
        """Raise InputError for the first of ``values`` (an array of any kind) that is not good."""
        if not good.all():
            row = int(np.argmin(good))
            found = values[row]
            raise self._source.error(
                int(self._lines[row]),
                column,
                found.item() if isinstance(found, np.generic) else found,
                expected,
            )


def _tree_from_hits(
    table: _Table,
    prompt: npt.NDArray[np.int64],
    cached: npt.NDArray[np.int64],
    source: npt.NDArray[np.int64],
) -> tuple[PrefixTree, npt.NDArray[np.int32]]:
    """Build a tree in which each row shares ``cached`` tokens with an earlier row, and no more.

    The anchor of a row is the first row of its source with a prompt of at least ``cached`` tokens.
    So an anchor is longer than all earlier rows of its source.
    """
    n = len(prompt)
    anchor = np.full(n, -1, dtype=np.int64)
    good = cached < np.maximum(prompt, 1)
    for code in range(int(source.max()) + 1):
        rows = np.flatnonzero(source == code)
        longest = np.maximum.accumulate(prompt[rows])
        place = np.searchsorted(longest, cached[rows], side="left")
        good[rows] &= (cached[rows] == 0) | (place < np.arange(len(rows)))
        anchor[rows] = rows[np.minimum(place, len(rows) - 1)]
    expected = "less than the prompt, and no more than an earlier prompt of the same source"
    table.check("max_cached_tokens", cached, good, expected)
    # One node per (anchor, depth) in use, sorted by depth, so that parents come first.
    sharing = np.flatnonzero(cached > 0)
    pairs, which = np.unique(
        np.stack((cached[sharing], anchor[sharing])), axis=1, return_inverse=True
    )
    depth, owner = pairs
    node = np.zeros(n, dtype=np.int64)
    node[sharing] = which + 1
    # The depths of one anchor form a chain, which starts at the node of the anchor itself.
    deepest = node.copy()
    parent = np.empty(len(depth), dtype=np.int64)
    for v in range(len(depth)):
        parent[v] = deepest[owner[v]]
        deepest[owner[v]] = v + 1
    above = np.concatenate(([0], depth))[parent]
    tree = PrefixTree(
        np.concatenate(([-1], parent)).astype(np.int32), np.concatenate(([0], depth - above))
    )
    return tree, deepest.astype(np.int32)
