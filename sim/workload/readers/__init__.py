"""Readers turn a trace file into a :class:`Workload`; its format is given or found by its content.

To add a format, add a file to this folder and a line each to `FORMATS` and `_MARKS`.

Rows whose prompt or output has no tokens are dropped and counted in the notes. Such requests failed
or were cancelled (BurstGPT marks failures with 0 response tokens), and no engine runs them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from bssim.errors import InputError, unknown_name
from bssim.input_file import lines_head
from bssim.sim.workload.combine import cap_lengths
from bssim.sim.workload.readers.batch_file import (
    OUTPUTS_ARE_CAPS,
    BatchFile,
    check_first_line,
    parse_batch,
    read_batch_file,
    read_openai_batch,
)
from bssim.sim.workload.readers.csv_files import (
    read_azure,
    read_bssim_csv,
    read_burstgpt,
    read_mmlu,
    read_vidur,
)
from bssim.sim.workload.readers.json_lines import (
    first_object,
    objects,
    read_mooncake,
    read_token_ids,
    whole_number,
)
from bssim.sim.workload.readers.options import AS_WRITTEN, ReaderOptions
from bssim.sim.workload.readers.source_text import SourceText, read_text, reading
from bssim.sim.workload.workload import Workload

__all__ = [
    "AS_WRITTEN",
    "FORMATS",
    "OUTPUTS_ARE_CAPS",
    "BatchFile",
    "ReaderOptions",
    "SourceText",
    "check_file",
    "objects",
    "parse_batch",
    "read_batch_file",
    "read_text",
    "read_workload",
    "tell_format",
    "whole_number",
]

FORMATS: Mapping[str, Callable[[SourceText], Workload]] = MappingProxyType(
    {
        "azure": read_azure,
        "burstgpt": read_burstgpt,
        "vidur": read_vidur,
        "bssim-csv": read_bssim_csv,
        "mmlu": read_mmlu,
        "mooncake": read_mooncake,
        "token-ids": read_token_ids,
        "openai-batch": read_openai_batch,
    }
)
"""Format name -> reader."""

_MARKS = (
    ("bssim-csv", ("prompt_tokens", "output_tokens")),
    ("azure", ("ContextTokens", "GeneratedTokens")),
    ("burstgpt", ("Request tokens", "Response tokens")),
    ("vidur", ("num_prefill_tokens", "num_decode_tokens")),
    ("mmlu", ("subject", "prefix_tokens", "question_tokens")),
    ("mooncake", ("hash_ids",)),
    ("token-ids", ("prompt_token_ids",)),
    ("openai-batch", ("body",)),
)
"""The columns or keys of the first line that identify a format."""


LONGEST_HEADER = 100_000
"""Characters of a CSV header."""


def read_workload(
    path: str | Path, options: ReaderOptions = AS_WRITTEN, *, name: str | None = None
) -> Workload:
    """Read a trace file, plain or gzip.

    ``name`` is the name of the workload and its source; None takes the stem of the file.

    Raises InputError naming file, line, field, the value found and what was expected.
    """
    file = Path(path)
    text = SourceText(
        path=str(path),
        name=name or file.name.split(".")[0],
        text=read_text(file),
        options=options,
    )
    if options.format is not None:
        _check_format(options.format)
    format = options.format or _sniff(text)
    _check_options(text, format)
    workload = FORMATS[format](text)
    return cap_lengths(
        workload,
        max_prompt_tokens=options.max_prompt_tokens,
        max_output_tokens=options.max_output_tokens,
    )


def tell_format(path: str | Path, format: str | None = None) -> str:
    """Return the format of a trace file; read only its first line.

    Raises InputError for an unknown ``format``, for a file that does not have the given one, and
    for a file of no known format.
    """
    if format is not None:
        _check_format(format)
    head = SourceText(path=str(path), name="", text=_read_head(Path(path)))
    if format is None:
        return _sniff(head)
    kind, found = _first_names(head)
    missing = [name for name in dict(_MARKS)[format] if name not in found]
    if missing:
        raise InputError(
            "format",
            f"{format!r} for {path}, whose first line has {kind} {', '.join(found)[:200]}",
            f"also {', '.join(missing)}",
        )
    return format


def check_file(path: str | Path, options: ReaderOptions = AS_WRITTEN) -> None:
    """Raise InputError if the first line shows that a file cannot be read with ``options``."""
    format = tell_format(path, options.format)
    head = SourceText(path=str(path), name="", text=_read_head(Path(path)), options=options)
    _check_options(head, format)
    if format == "openai-batch":
        check_first_line(head)


def _check_options(source: SourceText, format: str) -> None:
    """Raise InputError for options of batch files with another format."""
    if format == "openai-batch":
        return
    for option in ("tokenizer", "default_output_tokens"):
        value = getattr(source.options, option)
        if value is not None:
            raise InputError(
                option,
                repr(value),
                f"none: {source.path} is {format}, which has its own token counts "
                "(this option is for openai-batch)",
            )


def _check_format(format: str) -> None:
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)


def _read_head(file: Path) -> str:
    """Return the file up to the end of the first line that is not blank."""
    with reading(file):
        return lines_head(file).decode("utf-8-sig")


def _first_names(source: SourceText) -> tuple[str, list[str]]:
    """Return ``keys`` or ``columns``, and their names on the first line that is not blank."""
    line = source.first_line()
    if line.startswith("{"):
        return "keys", list(first_object(source))
    if len(line) > LONGEST_HEADER:
        raise InputError(f"{source.path}:1", f"a line of {len(line):,} characters", "a CSV header")
    return "columns", [column.strip().strip('"') for column in line.split(",")]


def _sniff(source: SourceText) -> str:
    """Find the format from the first line that is not blank: a CSV header or a JSON object."""
    kind, found = _first_names(source)
    for format, marks in _MARKS:
        if set(marks) <= set(found):
            return format
    wanted = "; ".join(f"{format}: {', '.join(marks)}" for format, marks in _MARKS)
    raise InputError(
        f"{source.path}:1", f"{kind} {', '.join(found)[:200]}", f"those of one of {wanted}"
    )
