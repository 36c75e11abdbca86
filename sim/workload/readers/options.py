"""Reader options, shared by the command line, sweeps and validation."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """How a trace file is read; see `bssim.sim.workload.readers.read_workload`."""

    format: str | None = None
    """None: find it from the content."""
    tokenizer: str | None = None
    """For OpenAI batch files: a tokenizer.json, a model folder, or ``bytes:4`` (four bytes per
    token)."""
    default_output_tokens: int | None = None
    """The cap of batch file lines without one."""
    max_prompt_tokens: int | None = None
    """Cut longer prompts; a note says how many."""
    max_output_tokens: int | None = None
    """Cut longer outputs; a note says how many."""
