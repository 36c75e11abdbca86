"""How a trace file is read: the options that the command line, sweeps and validation share."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """How a trace file is read; see `bssim.sim.workload.readers.read_workload`."""

    format: str | None = None
    """None: found from the content."""
    tokenizer: str | None = None
    """For OpenAI batch files: a tokenizer.json, a model folder, or ``bytes:4`` (four bytes per
    token)."""
    default_output_tokens: int | None = None
    """Stands in for the cap of lines of a batch file that have none."""
    max_prompt_tokens: int | None = None
    """Cut longer prompts; the note says how many."""
    max_output_tokens: int | None = None
