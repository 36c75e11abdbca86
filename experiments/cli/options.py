"""Options that several commands share, and the cell that they define."""

from collections.abc import Iterable
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bssim.errors import InputError

if TYPE_CHECKING:
    from bssim.experiments.batch import Serving
    from bssim.experiments.sweeps import Cell, WorkloadRef

Workload = Annotated[
    str, typer.Option("--workload", "-w", help="Built-in name (trace1 .. trace4, ...) or file.")
]


def complete_scheduler(incomplete: str) -> list[str]:
    """Return the schedulers that a shell completes ``incomplete`` to."""
    from bssim.sim.schedulers import scheduler_names

    return [name for name in scheduler_names() if name.startswith(incomplete)]


def complete_model(incomplete: str) -> list[str]:
    """Return the models that a shell completes ``incomplete`` to; without any, it offers files."""
    from bssim.cost_models.llm import known_llms

    return [name for name in known_llms() if name.startswith(incomplete)]


def complete_hardware(incomplete: str) -> list[str]:
    """Return the GPUs that a shell completes ``incomplete`` to; without any, it offers files."""
    from bssim.cost_models.hardware import known_hardware

    return [name for name in known_hardware() if name.startswith(incomplete)]


Scheduler = Annotated[
    str,
    typer.Option(
        "--scheduler", "-s", help="See `bssim schedulers`.", autocompletion=complete_scheduler
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="See `bssim models`, or a config.json or YAML file.",
        autocompletion=complete_model,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="auto, bfloat16, float16 or float32, as in vLLM. [default: the model's own]"
    ),
]
Quantization = Annotated[
    str | None,
    typer.Option(
        "--quantization",
        help="fp8, int8, awq, gptq, bitsandbytes, ..., as in vLLM; none: plain weights. "
        "[default: the model's own]",
    ),
]
KVCacheDtype = Annotated[
    str | None,
    typer.Option("--kv-cache-dtype", help="auto or fp8, as in vLLM. [default: the model's own]"),
]
Hardware = Annotated[
    str,
    typer.Option(
        "--hardware",
        help="See `bssim hardware`, or a YAML file.",
        autocompletion=complete_hardware,
    ),
]
NumRequests = Annotated[
    int | None,
    typer.Option(
        "--num-requests",
        "-n",
        min=1,
        help="Number of requests. [default: 400,000 for a built-in workload, all rows of a file]",
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed.")]
Engine = Annotated[str, typer.Option("--engine", help="Preset: nanoflow, sglang, trtllm or vllm.")]
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
        "--output-lengths",
        help="sampled, sampled_before, survival, mean, mean_only, oracle or max_tokens.",
    ),
]
PipelineParallel = Annotated[
    int | None,
    typer.Option("--pp", min=1, help="Pipeline stages per replica."),
]
TensorParallel = Annotated[
    int, typer.Option("--tp", min=1, help="GPUs per pipeline stage (tensor parallelism).")
]
DataParallel = Annotated[
    int, typer.Option("--dp", min=1, max=10_000, help="Replicas, at most 10,000.")
]
Disaggregation = Annotated[
    str | None,
    typer.Option(
        "--disaggregation",
        metavar="xPyD",
        help="Replicas that only prefill and that only decode, such as 1P2D.",
    ),
]
OnOversize = Annotated[
    Literal["error", "drop"],
    typer.Option(
        "--on-oversize", help="What to do with a request that can never fit the KV cache."
    ),
]
Format = Annotated[
    str | None, typer.Option("--format", help="File format. [default: detected from the content]")
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="For batch files with text: tokenizer.json, model folder, or bytes:4 (rough).",
    ),
]
DefaultOutputTokens = Annotated[
    int | None,
    typer.Option(
        "--default-output-tokens",
        min=1,
        help="For batch files: output cap of lines that set none.",
    ),
]
MaxPromptTokens = Annotated[
    int | None,
    typer.Option("--max-prompt-tokens", min=1, help="Truncate longer prompts of a file."),
]
MaxOutputTokens = Annotated[
    int | None,
    typer.Option("--max-output-tokens", min=1, help="Truncate longer outputs of a file."),
]
Perfetto = Annotated[
    Path | None,
    typer.Option("--perfetto", help="Write a trace for the Perfetto UI (.json or .json.gz)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON value on stdout.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only results, warnings and errors.")
]


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How many requests to take from a workload, and how to read its file."""

    num_requests: NumRequests = None
    seed: Seed = 0
    format: Format = None
    tokenizer: Tokenizer = None
    default_output_tokens: DefaultOutputTokens = None
    max_prompt_tokens: MaxPromptTokens = None
    max_output_tokens: MaxOutputTokens = None

    def of(self, source: str) -> "WorkloadRef":
        """Return the workload of a file or built-in name."""
        from bssim.experiments.sweeps import WorkloadRef
        from bssim.sim.workload.readers import ReaderOptions

        reader = ReaderOptions(
            self.format,
            self.tokenizer,
            self.default_output_tokens,
            self.max_prompt_tokens,
            self.max_output_tokens,
        )
        return WorkloadRef(source, self.num_requests, self.seed, reader=reader)


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """Model, machine and engine of a batch; defaults that apply are reported."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="See `bssim models`, or a config.json or YAML file. [default: llama-3-8b]",
            autocompletion=complete_model,
        ),
    ] = None
    dtype: Dtype = None
    quantization: Quantization = None
    kv_cache_dtype: KVCacheDtype = None
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware",
            help="See `bssim hardware`, or a YAML file. [default: a100-80gb]",
            autocompletion=complete_hardware,
        ),
    ] = None
    engine: Annotated[
        str | None, typer.Option("--engine", help="Preset: see `bssim engines`. [default: vllm]")
    ] = None
    overlap: Overlap = None
    cost_model: Annotated[
        str | None,
        typer.Option(
            "--cost-model", help="roofline, silicon, paper or fitted:FILE. [default: roofline]"
        ),
    ] = None
    settings: Settings = None
    tp: TensorParallel = 1
    pp: PipelineParallel = None
    dp: DataParallel = 1
    seed: Seed = 0
    on_oversize: OnOversize = "error"

    def serving(self) -> "Serving":
        """Return the setup that serves the requests; raises InputError for a wrong value."""
        from bssim.cost_models.hardware import load_hardware
        from bssim.cost_models.llm import load_llm
        from bssim.experiments import batch
        from bssim.experiments.sweeps import engine_from_options

        precision = {
            "dtype": self.dtype,
            "quantization": self.quantization,
            "kv_cache_dtype": self.kv_cache_dtype,
        }
        named = {
            "model": self.model,
            "precision": next((v for v in precision.values() if v is not None), None),
            "hardware": self.hardware,
            "engine": self.engine,
            "cost_model": self.cost_model,
        }
        return batch.Serving(
            llm=load_llm(self.model or batch.DEFAULT_MODEL, **precision),
            hardware=load_hardware(self.hardware or batch.DEFAULT_HARDWARE),
            engine=engine_from_options(
                self.engine or batch.DEFAULT_ENGINE, self.settings, self.overlap, self.pp
            ),
            cost_model=self.cost_model or batch.DEFAULT_COST_MODEL,
            tp=self.tp,
            dp=self.dp,
            seed=self.seed,
            on_oversize=self.on_oversize,
            given=frozenset(name for name, value in named.items() if value is not None),
        )


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How to read a batch file, and what is known about its output lengths."""

    tokenizer: Annotated[
        str | None,
        typer.Option(
            "--tokenizer",
            help="For text: tokenizer.json, model folder, or bytes:N. [default: bytes:4, rough]",
        ),
    ] = None
    lengths: Annotated[
        Path | None,
        typer.Option(
            "--lengths", help="Output file of an earlier run, to learn output lengths from."
        ),
    ] = None
    lengths_batch: Annotated[
        Path | None,
        typer.Option(
            "--lengths-batch",
            help="Batch file of that run. [default: it served these requests, by custom_id]",
        ),
    ] = None
    default_output_tokens: DefaultOutputTokens = None
    on_unsupported: Annotated[
        Literal["error", "end"],
        typer.Option(
            "--on-unsupported",
            help="Lines that bssim cannot price, such as images or n > 1: refuse, or put last.",
        ),
    ] = "error"


SIMULATED_ENGINE = "nanoflow"
"""The default engine of `simulate`, which is the paper's. That of `compare` is vllm."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How one replica serves a workload."""

    scheduler: Scheduler = "blendserve"
    model: Model = "llama-3-8b"
    dtype: Dtype = None
    quantization: Quantization = None
    kv_cache_dtype: KVCacheDtype = None
    hardware: Hardware = "a100-80gb"
    engine: Annotated[
        str | None,
        typer.Option("--engine", help="Preset: see `bssim engines`. [default: nanoflow]"),
    ] = None
    overlap: Overlap = None
    cost_model: CostModel = "roofline"
    settings: Settings = None
    output_lengths: OutputLengths = "sampled"
    on_oversize: OnOversize = "error"

    def cell(
        self,
        workload: "WorkloadRef",
        config: str,
        *,
        tp: int = 1,
        dp: int = 1,
        pp: int | None = None,
        disaggregation: str | None = None,
    ) -> "Cell":
        """Return the cell, with the seed of the workload; raises InputError for a wrong value."""
        from bssim.cost_models.hardware import load_hardware
        from bssim.cost_models.llm import load_llm
        from bssim.experiments.sweeps import Cell, engine_from_options

        return Cell(
            workload=workload,
            scheduler=self.scheduler,
            llm=load_llm(
                self.model,
                dtype=self.dtype,
                quantization=self.quantization,
                kv_cache_dtype=self.kv_cache_dtype,
            ),
            hardware=load_hardware(self.hardware),
            engine=engine_from_options(
                self.engine or SIMULATED_ENGINE, self.settings, self.overlap, pp
            ),
            cost_model=self.cost_model,
            output_lengths=self.output_lengths,
            seed=workload.seed,
            tp=tp,
            dp=dp,
            disaggregation=disaggregation,
            on_oversize=self.on_oversize,
            config=config,
        )


def require_jobs(jobs: int) -> None:
    """Raise InputError unless ``--jobs`` is a positive number of workers or -1."""
    if jobs == 0 or jobs < -1:
        raise InputError("--jobs", jobs, "a positive number, or -1 for all cores")


def require_suffix(path: Path | None, option: str, *suffixes: str) -> None:
    """Raise InputError unless the command can write files with this suffix."""
    if path is not None and path.suffix not in suffixes:
        endings = " or ".join(suffixes)
        raise InputError(option, repr(str(path)), f"a name ending in {endings}")


def require_writable(path: Path | None, option: str) -> None:
    """Raise InputError if a file cannot be written, before the command spends minutes of work."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(option, f"{str(path)!r}, a folder", "a file to write")
    if not path.parent.is_dir():
        raise InputError(
            option, f"no folder {str(path.parent)!r} for {path.name!r}", "an existing one"
        )


def require_distinct(
    outputs: Iterable[tuple[str, Path | None]], read: str | Path, what: str
) -> None:
    """Raise InputError if an output is the input ``read`` (named ``what``) or another output."""
    taken = [(what, Path(read))]
    for option, path in outputs:
        if path is None or (
            path.exists() and not path.is_file()
        ):  # several outputs may be /dev/null
            continue
        for other, there in taken:
            if realpath(path) == realpath(
                there
            ) or (  # not Path.resolve: it fails on a loop of links
                path.exists() and there.exists() and path.samefile(there)  # a hard link
            ):
                raise InputError(option, f"{str(path)!r}, {other}", "another file")
        taken.append((f"the file of {option}", path))


def require_picture(path: Path | None) -> None:
    """Raise InputError unless ``--figure`` names a .png in a folder that exists."""
    require_suffix(path, "--figure", ".png")
    require_writable(path, "--figure")


def require_trace(path: Path | None) -> None:
    """Raise InputError unless ``--perfetto`` names a .json or .json.gz in a folder that exists."""
    if path is not None and not path.name.endswith((".json", ".json.gz")):
        raise InputError("--perfetto", repr(str(path)), "a name ending in .json or .json.gz")
    require_writable(path, "--perfetto")
