"""Options that several commands share, and the cell that they describe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bssim.errors import InputError

if TYPE_CHECKING:
    from bssim.experiments.cell import Cell, WorkloadRef

Workload = Annotated[
    str, typer.Option("--workload", "-w", help="Built-in name (trace1 .. trace4, ...) or file.")
]
Scheduler = Annotated[str, typer.Option("--scheduler", "-s", help="See `bssim schedulers`.")]
Model = Annotated[
    str, typer.Option("--model", "-m", help="See `bssim models`, or a config.json or YAML file.")
]
Hardware = Annotated[str, typer.Option("--hardware", help="See `bssim hardware`, or a YAML file.")]
NumRequests = Annotated[
    int | None,
    typer.Option(
        "--num-requests",
        "-n",
        min=1,
        help="Size of the pool. [default: 400,000 of a built-in workload, all rows of a file]",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Engine = Annotated[str, typer.Option("--engine", help="Preset: nanoflow, sglang or vllm.")]
Overlap = Annotated[
    str | None,
    typer.Option(
        "--overlap",
        help="sequential, perfect, frontier, gamma:G or pnorm:P. [default: the engine preset's]",
    ),
]
CostModel = Annotated[
    str, typer.Option("--cost-model", help="roofline, silicon, paper or fitted:FILE.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="engine.FIELD=VALUE", help="Set an engine knob; repeatable."),
]
OutputLengths = Annotated[
    str,
    typer.Option(
        "--output-lengths", help="sampled, survival, mean, mean_only, oracle or max_tokens."
    ),
]
TensorParallel = Annotated[int, typer.Option("--tp", min=1, help="GPUs that share a replica.")]
DataParallel = Annotated[int, typer.Option("--dp", min=1, help="Replicas.")]
Disaggregation = Annotated[
    str | None,
    typer.Option(
        "--disaggregation",
        metavar="xPyD",
        help="Replicas that only prefill and replicas that only decode, as 1P2D.",
    ),
]
OnOversize = Annotated[
    Literal["error", "drop"],
    typer.Option("--on-oversize", help="A request that can never fit the KV cache."),
]
Format = Annotated[
    str | None, typer.Option("--format", help="Reader of the file. [default: from its content]")
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="For batch files with text: tokenizer.json, model folder, or bytes:4 (rough).",
    ),
]
OutputTokens = Annotated[
    int | None,
    typer.Option(
        "--output-tokens",
        min=1,
        help="For batch files: expected output length. [default: each request's cap]",
    ),
]
MaxPromptTokens = Annotated[
    int | None, typer.Option("--max-prompt-tokens", min=1, help="Cut a file's longer prompts.")
]
MaxOutputTokens = Annotated[
    int | None, typer.Option("--max-output-tokens", min=1, help="Cut a file's longer outputs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON value on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def workload_ref(
    source: str,
    num_requests: int | None,
    seed: int,
    format: str | None,
    tokenizer: str | None,
    output_tokens: int | None,
    max_prompt_tokens: int | None,
    max_output_tokens: int | None,
) -> "WorkloadRef":
    """Return the workload that a command line names."""
    from bssim.experiments.cell import ReaderOptions, WorkloadRef

    reader = ReaderOptions(format, tokenizer, output_tokens, max_prompt_tokens, max_output_tokens)
    return WorkloadRef(source, num_requests, seed, reader=reader)


def make_cell(
    *,
    workload: "WorkloadRef",
    scheduler: str,
    model: str,
    hardware: str,
    seed: int,
    engine: str,
    overlap: str | None,
    cost_model: str,
    settings: list[str] | None,
    output_lengths: str,
    tp: int,
    dp: int,
    on_oversize: Literal["error", "drop"],
    config: str,
    disaggregation: str | None = None,
) -> "Cell":
    """Return the cell that a command line describes; raises InputError for a wrong value."""
    from bssim.cost_models.hardware import load_hardware
    from bssim.cost_models.llm_config import load_llm
    from bssim.experiments.cell import Cell
    from bssim.experiments.knobs import engine_from_options

    return Cell(
        workload=workload,
        scheduler=scheduler,
        llm=load_llm(model),
        hardware=load_hardware(hardware),
        engine=engine_from_options(engine, settings, overlap),
        cost_model=cost_model,
        output_lengths=output_lengths,
        seed=seed,
        tp=tp,
        dp=dp,
        disaggregation=disaggregation,
        on_oversize=on_oversize,
        config=config,
    )


def require_suffix(path: Path | None, option: str, *suffixes: str) -> None:
    """Raise InputError unless an output file's suffix is one that the command can write."""
    if path is not None and path.suffix not in suffixes:
        endings = " or ".join(suffixes)
        raise InputError(f"{option}: found {str(path)!r}; expected a name ending in {endings}")


def require_picture(path: Path | None) -> None:
    """Raise InputError unless ``--figure`` names a .png in a folder that exists."""
    require_suffix(path, "--figure", ".png")
    if path is not None and not path.parent.is_dir():
        raise InputError(
            f"--figure: found no folder {str(path.parent)!r} for {path.name!r}; "
            "expected an existing one"
        )
