"""``bssim plan``: write the lines of a batch file in the best order for a stock engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec
from bssim.errors import unknown_name
from bssim.experiments.batch.compare import (
    DEFAULT_SCHEDULERS,
    Pool,
    compare_pool,
    open_pool,
    require_batch,
)
from bssim.experiments.batch.comparison import (
    AUTO,
    LEAST_GAIN,
    Comparison,
    OrderResult,
    duration,
    durations,
)
from bssim.experiments.batch.plan_commands import plan_commands
from bssim.experiments.batch.serving import FileOrder, Serving
from bssim.experiments.batch.trials import Progress
from bssim.experiments.batch.writing import part_names, stale_parts, write_lines
from bssim.sim.engine import EngineConfig
from bssim.sim.schedulers import scheduler_names
from bssim.sim.workload.readers import BatchFile


@dataclass(frozen=True, eq=False)
class WrittenPlan:
    """The files that `plan` wrote, and the comparison behind their order."""

    files: tuple[Path, ...]
    comparison: Comparison
    order: OrderResult
    """The order that was written."""
    num_requests: int
    """Lines in the files."""
    planned: int
    """Lines that were put in order. The others are at the end of the last file."""
    sharing_max: float
    """The largest share of prompt tokens that any order can find in an unlimited cache."""
    left_out: dict[str, int]
    """Number of lines that bssim cannot price, by reason."""
    warnings: tuple[str, ...]
    commands: tuple[str, ...]
    """Commands that run the files on a stock engine; empty if the engine has none."""

    @property
    def summary(self) -> str:
        """Simulated time before and after, and how sure the gain is."""
        own, order = self.comparison.own, self.order
        if order.makespan_s == own.makespan_s:
            return f"{order.scheduler}: {duration(own.makespan_s)}, like the file's own order"
        before, after = durations(own.makespan_s, order.makespan_s)
        line = f"{order.scheduler}: {after} instead of {before} ({order.speedup:.2f}x), simulated"
        if order.speedup < 1.0 + LEAST_GAIN:
            return f"{line}; too little to matter"
        said = self.comparison.robustness if order is self.comparison.choice else None
        return line if said is None else f"{line}. {said}"

    def as_json(self) -> dict[str, Any]:
        """Return the plan as ``--json`` prints it."""
        own = self.comparison.own
        return {
            "out": str(self.files[0]) if len(self.files) == 1 else None,
            "files": [str(file) for file in self.files],
            "num_requests": self.num_requests,
            "planned": self.planned,
            "left_out": self.left_out,
            "scheduler": self.order.scheduler,
            "sharing": self.order.sharing,
            "sharing_max": self.sharing_max,
            "before_s": own.makespan_s,
            "after_s": self.order.makespan_s,
            "speedup": self.order.speedup,
            "assumed": self.comparison.assumed.as_json(),
            "warnings": list(self.warnings),
            "commands": list(self.commands),
        }


def plan(
    batch: str | Path,
    out: str | Path,
    *,
    scheduler: str = AUTO,
    model: str | Path | LLMSpec | None = None,
    hardware: str | Path | HardwareSpec | None = None,
    engine: str | EngineConfig | None = None,
    cost_model: str | None = None,
    tp: int = 1,
    dp: int = 1,
    seed: int = 0,
    tokenizer: str | None = None,
    lengths: str | Path | None = None,
    lengths_batch: str | Path | None = None,
    default_output_tokens: int | None = None,
    on_unsupported: str = "error",
    on_oversize: Literal["error", "drop"] = "error",
    progress: Progress | None = None,
) -> WrittenPlan:
    """Write the lines of an OpenAI batch file in a better order. Their bytes stay the same.

    Args:
        batch: The batch file, plain or gzip.
        out: File to write. ``-`` means standard output; a name ending in ``.gz`` is compressed.
            With ``dp`` above 1, each replica gets its own file: ``out.0.jsonl`` and so on.
        scheduler: The name of a scheduler, or ``auto``: the best file order that `compare` finds,
            which may be the file's own.
        model: See `compare`.
        hardware, engine, cost_model, tp, dp, seed: See `compare`.
        tokenizer, lengths, lengths_batch, default_output_tokens: See `compare`.
        on_unsupported: ``end`` moves lines that bssim cannot price to the end.
        on_oversize: ``drop`` moves requests that can never fit the KV cache to the end.
        progress: See `compare`.

    Returns:
        The files written and the comparison behind them.

    Raises:
        InputError: for wrong names, values and files.

    >>> import bssim, pathlib
    >>> body = '{"custom_id": "a%d", "body": {"prompt": [%d, 7, 7], "max_tokens": 4}}'
    >>> lines = [body % (i, i % 2) for i in range(4)]
    >>> _ = pathlib.Path("batch.jsonl").write_text("".join(f"{line}\\n" for line in lines))
    >>> written = bssim.plan("batch.jsonl", "ordered.jsonl")
    >>> sorted(pathlib.Path("ordered.jsonl").read_text().splitlines()) == lines
    True
    >>> written.order.speedup >= 1
    True
    """
    serving = Serving.of(
        model=model,
        hardware=hardware,
        engine=engine,
        cost_model=cost_model,
        tp=tp,
        dp=dp,
        seed=seed,
        on_oversize=on_oversize,
    )
    return write_plan(
        batch,
        Path(out),
        serving,
        scheduler,
        tokenizer=tokenizer,
        lengths=lengths,
        lengths_batch=lengths_batch,
        default_output_tokens=default_output_tokens,
        on_unsupported=on_unsupported,
        progress=progress,
    )


def write_plan(
    batch: str | Path,
    out: Path,
    serving: Serving,
    scheduler: str = AUTO,
    *,
    tokenizer: str | None = None,
    lengths: str | Path | None = None,
    lengths_batch: str | Path | None = None,
    default_output_tokens: int | None = None,
    on_unsupported: str = "error",
    progress: Progress | None = None,
) -> WrittenPlan:
    """Read, compare, choose and write; see `plan`."""
    if scheduler != AUTO and scheduler not in scheduler_names():
        raise unknown_name("--scheduler", scheduler, [AUTO, *scheduler_names()])
    files = part_names(out, serving.dp)
    require_batch(batch)
    stale = stale_parts(out, serving.dp)
    pool = open_pool(
        batch,
        serving,
        tokenizer=tokenizer,
        lengths=lengths,
        lengths_batch=lengths_batch,
        default_output_tokens=default_output_tokens,
        on_unsupported=on_unsupported,
    )
    assert pool.batch is not None
    names = DEFAULT_SCHEDULERS if scheduler == AUTO else (scheduler,)
    comparison = compare_pool(pool, serving, names, write=scheduler, progress=progress)
    order = comparison.best_file
    if scheduler != AUTO:
        order = next(o for o in comparison.orders if o.scheduler == scheduler and o.mode == "file")
    assert order.order is not None  # always set in mode ``file``
    for file, lines in zip(files, _parts(pool.batch, pool, order.order), strict=True):
        write_lines(file, lines)
    return WrittenPlan(
        files=tuple(files),
        comparison=comparison,
        order=order,
        num_requests=len(pool.batch.lines),
        planned=len(pool.workload),
        sharing_max=pool.workload.sharing_max,
        left_out=pool.batch.reasons,
        warnings=(*_warnings(comparison, order), *_stale(stale)),
        commands=plan_commands(files, pool.batch, serving),
    )


def _parts(batch: BatchFile, pool: Pool, order: FileOrder) -> list[list[str]]:
    """Return the lines of each file. Lines without a plan are at the end of the last file."""
    at = {custom_id: k for k, custom_id in enumerate(batch.ids)}
    line = [at[pool.workload.request_id(i)] for i in range(len(pool.workload))]
    parts = [[batch.lines[line[i]] for i in part.tolist()] for part in order.parts]
    planned = set(line)
    parts[-1] += [text for k, text in enumerate(batch.lines) if k not in planned]
    return parts


def _warnings(comparison: Comparison, order: OrderResult) -> list[str]:
    """Return warnings about the plan."""
    warnings = list(comparison.warnings)
    if order.makespan_s > comparison.own.makespan_s:
        warnings.append(
            f"{order.scheduler} is slower than the file's own order "
            f"({order.speedup:.2f}x); --scheduler auto never chooses a slower one"
        )
    return warnings


def _stale(files: Sequence[Path]) -> list[str]:
    return [f"{file} is left from an earlier plan and not part of this one" for file in files]
