"""``bssim compare``: simulate every order of a pool, as a file and at run time, and choose one.

A small pool is simulated whole (`trials`), of a large one only a sample (`pool_sample`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec
from bssim.errors import InputError, unknown_name
from bssim.experiments.batch.assumptions import Assumptions
from bssim.experiments.batch.comparison import OWN, Comparison, ranked
from bssim.experiments.batch.lengths import (
    Lengths,
    earlier_run,
    from_caps,
    from_workload,
    learn,
    read_output_lengths,
    same_requests,
)
from bssim.experiments.batch.pool_sample import PoolSample
from bssim.experiments.batch.serving import Serving
from bssim.experiments.batch.trials import Progress, Trials
from bssim.sim.engine import EngineConfig
from bssim.sim.schedulers import scheduler_names
from bssim.sim.workload import Workload, load_workload
from bssim.sim.workload.readers import (
    OUTPUTS_ARE_CAPS,
    BatchFile,
    ReaderOptions,
    read_batch_file,
    tell_format,
)
from bssim.wording import counted

DEFAULT_SCHEDULERS = (
    *("fcfs", "random", "dfs", "dfs_memory_first", "dfs_compute_first"),
    *("lpm", "blendserve", "ratio"),
)
DEFAULT_TOKENIZER = "bytes:4"


@dataclass(frozen=True, eq=False)
class Pool:
    """A workload, what is known about its output lengths, and its batch file if it has one."""

    workload: Workload
    lengths: Lengths
    assumed: Assumptions = field(default_factory=Assumptions)
    batch: BatchFile | None = None


def compare(
    workload: Workload | str | Path,
    *,
    model: str | Path | LLMSpec | None = None,
    hardware: str | Path | HardwareSpec | None = None,
    engine: str | EngineConfig | None = None,
    cost_model: str | None = None,
    tp: int = 1,
    dp: int = 1,
    seed: int = 0,
    schedulers: Sequence[str] = DEFAULT_SCHEDULERS,
    tokenizer: str | None = None,
    lengths: str | Path | None = None,
    lengths_batch: str | Path | None = None,
    default_output_tokens: int | None = None,
    price_per_gpu_hour: float | None = None,
    num_requests: int | None = None,
    on_unsupported: str = "error",
    on_oversize: Literal["error", "drop"] = "error",
    progress: Progress | None = None,
) -> Comparison:
    """Simulate every order of a batch file or workload, and say which one to use.

    Args:
        workload: An OpenAI batch file, any other file or name that bssim reads, or a `Workload`.
        model: Name, ``config.json``, YAML file, or `bssim.load_model`. None: llama-3-8b.
        hardware: Name or YAML file, or the result of `bssim.load_hardware`. None: a100-80gb.
        engine: Preset, or the result of `bssim.load_engine`. None: vllm.
        cost_model: ``roofline``, ``silicon``, ``paper`` or ``fitted:FILE``. None: roofline.
        tp: GPUs per replica.
        dp: Number of replicas.
        seed: Seed for everything random.
        schedulers: Names of the orders to try. The file's own order is always included.
        tokenizer: Turns text into tokens: a tokenizer.json, a model folder, or ``bytes:N``.
            None: ``bytes:4``, an approximation.
        lengths: Output file of an earlier run, to learn output lengths from.
        lengths_batch: The batch file of that run. None: the run served some or all of these
            requests, under the same ``custom_id``.
        default_output_tokens: Cap for lines that have none.
        price_per_gpu_hour: Price of one GPU-hour in dollars. Needed to report the money saved.
        num_requests: Size of the pool, for a built-in workload.
        on_unsupported: Refuse (``error``) or leave out (``end``) lines that bssim cannot price.
        on_oversize: Refuse (``error``) or leave out (``drop``) requests too long for the KV cache.
        progress: Called with (finished simulations, all simulations).

    Returns:
        The simulated orders, the chosen one, and the assumptions.

    Raises:
        InputError: for wrong names, values and files.

    >>> found = bssim.compare("trace1", num_requests=300, schedulers=["dfs"])
    >>> sorted(order.scheduler for order in found.orders)
    ['dfs', 'fcfs']
    >>> found.choice.speedup >= 1.0
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
    pool = open_pool(
        workload,
        serving,
        tokenizer=tokenizer,
        lengths=lengths,
        lengths_batch=lengths_batch,
        default_output_tokens=default_output_tokens,
        num_requests=num_requests,
        on_unsupported=on_unsupported,
    )
    return compare_pool(
        pool, serving, schedulers, price_per_gpu_hour=price_per_gpu_hour, progress=progress
    )


def open_pool(
    workload: Workload | str | Path,
    serving: Serving,
    *,
    tokenizer: str | None = None,
    lengths: str | Path | None = None,
    lengths_batch: str | Path | None = None,
    default_output_tokens: int | None = None,
    num_requests: int | None = None,
    on_unsupported: str = "error",
) -> Pool:
    """Read the workload and record the assumptions. For the arguments, see `compare`."""
    assumed = Assumptions()
    serving.note(assumed)
    rng = np.random.default_rng(serving.seed)
    if lengths_batch is not None and lengths is None:
        raise InputError("--lengths-batch", repr(str(lengths_batch)), "--lengths FILE beside it")
    if not isinstance(workload, Workload) and _is_batch(workload):
        read = partial(
            read_batch_file,
            options=ReaderOptions(
                tokenizer=tokenizer or DEFAULT_TOKENIZER,
                default_output_tokens=default_output_tokens,
            ),
            keep_prompts=lengths_batch is not None,
        )
        batch = read(workload, on_unsupported=on_unsupported)
        pool = serving.fitting(batch.workload)
        known = from_caps(pool, rng)
        if lengths is not None:
            capped = {batch.ids[at] for at in np.flatnonzero(batch.capped).tolist()}
            has_cap = np.array([pool.request_id(i) in capped for i in range(len(pool))])
            seen = read_output_lengths(lengths)
            if lengths_batch is None:
                run = same_requests(pool, seen, str(lengths))
            else:
                earlier = read(lengths_batch, on_unsupported="end")
                run = earlier_run(pool, batch, earlier, seen, str(lengths))
            known = learn(pool, has_cap, run, rng)
            notes = tuple(note for note in pool.notes if not note.endswith(OUTPUTS_ARE_CAPS))
            pool = replace(pool, notes=notes)
        assumed.add(
            "tokenizer", tokenizer or DEFAULT_TOKENIZER, "given" if tokenizer else "default"
        )
        if default_output_tokens is not None:
            assumed.add("default_output_tokens", default_output_tokens, "given")
        assumed.add("lengths", known.main, known.origin)
        return Pool(pool, known, assumed, batch)
    for name, value in (
        ("--tokenizer", tokenizer),
        ("--lengths", lengths),
        ("--lengths-batch", lengths_batch),
        ("--default-output-tokens", default_output_tokens),
    ):
        if value is not None:
            raise InputError(name, repr(str(value)), "this option only with an OpenAI batch file")
    if not isinstance(workload, Workload):
        workload = load_workload(workload, num_requests=num_requests, seed=serving.seed)
    pool = serving.fitting(workload)
    known = from_workload(pool)
    assumed.add("lengths", known.main, known.origin)
    return Pool(pool, known, assumed)


def _is_batch(workload: str | Path) -> bool:
    return Path(workload).is_file() and tell_format(workload) == "openai-batch"


def require_batch(path: str | Path) -> None:
    """Raise InputError unless the file is an OpenAI batch file."""
    expected = 'lines of an OpenAI batch file: {"custom_id": ..., "body": {...}}'
    try:
        format = tell_format(path)
    except InputError as error:
        if error.where == f"{path}:1":
            raise InputError.saying(error.where, error.problem, expected) from None
        raise
    if format != "openai-batch":
        raise InputError(str(path), f"a trace of the format {format}", expected)


def compare_pool(
    pool: Pool,
    serving: Serving,
    schedulers: Sequence[str] = DEFAULT_SCHEDULERS,
    *,
    write: str | None = None,
    price_per_gpu_hour: float | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Simulate every order of a pool; see `compare`.

    ``write`` is the scheduler whose order will be written to a file, or `AUTO`. Run-time orders are
    then left out, and the order to write is always simulated with the whole pool, unless it is the
    file's own.
    """
    for name in schedulers:
        if name not in scheduler_names():
            raise unknown_name("--scheduler", name, scheduler_names())
    names = list(dict.fromkeys((OWN, *schedulers)))
    sample = PoolSample.of(pool.workload, pool.lengths)
    part = pool if sample is None else sample
    count = len(pool.workload)
    trials = Trials(part.workload, part.lengths, serving, progress, of_requests=count)
    found = Comparison(
        name=pool.workload.name,
        num_requests=count,
        orders=ranked(trials.results(names, file_only=write is not None)),
        assumed=pool.assumed,
        gpus=serving.gpus,
        price_per_gpu_hour=price_per_gpu_hour,
        notes=tuple(dict.fromkeys((*pool.workload.notes, *serving.notes(pool.workload)))),
        warnings=_model_warnings(pool, serving),
    )
    if sample is None:
        return found
    return sample.comparison_of_whole(found, pool.workload, pool.lengths, serving, write, progress)


def same_model(name: str, planned: str) -> bool:
    """Return whether a body's ``model`` may be the planned one.

    Only letters and digits count. The organisation, a suffix and punctuation are ignored.
    """

    def plain(text: str) -> str:
        text = text.rpartition("/")[2].lower().removeprefix("meta-")
        return "".join(c for c in text if c.isalnum())

    return plain(name).startswith(plain(planned))


def _model_warnings(pool: Pool, serving: Serving) -> tuple[str, ...]:
    """Return a warning if request bodies name a model other than the simulated one."""
    models = {} if pool.batch is None else pool.batch.models
    others = [name for name in models if not same_model(name, serving.llm.name)]
    if not others:
        return ()
    lines = counted(sum(models[name] for name in others), "line")
    shown = ", ".join(repr(name) for name in others[:3])
    return (
        f"{lines} for model {shown}, simulated on {serving.llm.name}: use --model to name the "
        "model that will serve them",
    )
