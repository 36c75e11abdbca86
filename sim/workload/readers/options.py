"""Reader options, shared by the command line, sweeps and validation."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """How a trace file is read; None is the default of every option."""

    format: str | None = None
    """A key of `FORMATS`; None finds it from the first line."""
    tokenizer: str | None = None
    """For OpenAI batch files: a tokenizer.json, a model folder, or ``bytes:4`` (four bytes per
    token)."""
    default_output_tokens: int | None = None
    """The cap of batch file lines without one."""
    max_prompt_tokens: int | None = None
    """Cut longer prompts; a note says how many."""
    max_output_tokens: int | None = None
    """Cut longer outputs; a note says how many."""


AS_WRITTEN = ReaderOptions()
"""Read a file as it is."""
