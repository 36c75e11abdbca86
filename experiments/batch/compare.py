"""``bssim compare``: simulate every order of a pool, as a file and at run time, and choose one.

1. Simulate every order with the main scenario of output lengths. The sequence in which a run-time
   scheduler admitted its requests is also tried as a file.
2. Simulate the file's own order and the fastest others with the remaining scenarios.

Two simulations run at a time, each in its own process.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.llm import LLMSpec
from bssim.errors import InputError, unknown_name
from bssim.experiments.batch.assumptions import Assumptions
from bssim.experiments.batch.comparison import OWN, Comparison, Mode, OrderResult
from bssim.experiments.batch.lengths import (
    Lengths,
    earlier_run,
    from_caps,
    from_workload,
    learn,
    read_output_lengths,
    same_requests,
)
from bssim.experiments.batch.serving import FileOrder, Serving
from bssim.sim.engine import EngineConfig
from bssim.sim.lengths import OutputEstimator
from bssim.sim.result import SimulationResult
from bssim.sim.schedulers import Scheduler, fixed_order_names, scheduler_names
from bssim.sim.workload import Workload, load_workload
from bssim.sim.workload.readers import BatchFile, ReaderOptions, read_batch_file, tell_format
from bssim.wording import counted

DEFAULT_SCHEDULERS = (
    *("fcfs", "random", "dfs", "dfs_memory_first", "dfs_compute_first"),
    *("lpm", "blendserve", "ratio"),
)
DEFAULT_TOKENIZER = "bytes:4"
FINALISTS = 2
"""How many orders of each mode, besides the file's own, are simulated in every scenario."""
INLINE_REQUESTS = 2000
"""Pools up to this size are simulated in this process, which is faster than starting others."""
JOBS = 2

Progress = Callable[[int, int], None]
"""Called with (finished simulations, all simulations)."""


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
    file_only: bool = False,
    price_per_gpu_hour: float | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Simulate every order of a pool; see `compare`. ``file_only`` leaves out run-time orders."""
    for name in schedulers:
        if name not in scheduler_names():
            raise unknown_name("--scheduler", name, scheduler_names())
    names = list(dict.fromkeys((OWN, *schedulers)))
    runs = _Runs(pool, serving, progress)
    first = runs.run([(name, None, pool.lengths.main) for name in names])
    trials: list[_Trial] = []
    replayed: list[_Trial] = []
    for name, found in zip(names, first, strict=True):
        order = FileOrder.of(found, serving.dp)
        if name in fixed_order_names():
            trials.append(_Trial(name, "file", found, order))
            continue
        if not file_only:
            trials.append(_Trial(name, "run_time", found, None))
        replayed.append(_Trial(name, "file", found, order))
    again = runs.run([(t.scheduler, t.order, pool.lengths.main) for t in replayed])
    trials += [replace(t, found=f) for t, f in zip(replayed, again, strict=True)]
    orders = _with_scenarios(trials, pool, runs)
    notes = dict.fromkeys(pool.workload.notes)
    return Comparison(
        name=pool.workload.name,
        num_requests=len(pool.workload),
        orders=tuple(sorted(orders, key=lambda o: (o.makespan_s, o.scheduler != OWN))),
        assumed=pool.assumed,
        gpus=serving.gpus,
        price_per_gpu_hour=price_per_gpu_hour,
        notes=tuple(notes),
        warnings=_model_warnings(pool, serving),
    )


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


@dataclass(frozen=True, eq=False)
class _Trial:
    scheduler: str
    mode: Mode
    found: SimulationResult
    order: FileOrder | None


def _with_scenarios(trials: list[_Trial], pool: Pool, runs: "_Runs") -> list[OrderResult]:
    """Run the remaining scenarios for the file's own order and the fastest others; judge all."""
    main, *others = pool.lengths.scenarios
    own = next(t for t in trials if t.scheduler == OWN)
    by_speed = sorted(trials, key=lambda t: t.found.makespan_s)
    finalists = [own]
    for mode in ("file", "run_time"):
        able = [
            t
            for t in by_speed
            if t.mode == mode and t is not own and t.found.makespan_s < own.found.makespan_s
        ]
        finalists += able[:FINALISTS]
    asked = [(t.scheduler, t.order, scenario) for t in finalists for scenario in others]
    seconds = [found.makespan_s for found in runs.run(asked)]
    k = len(others)
    of_finalist = {id(t): seconds[i * k : (i + 1) * k] for i, t in enumerate(finalists)}
    base = [own.found.makespan_s, *of_finalist[id(own)]]
    results = []
    for trial in trials:
        result = trial.found
        times = [result.makespan_s, *of_finalist.get(id(trial), [])]
        ratios = [b / t for b, t in zip(base, times, strict=False)]
        results.append(
            OrderResult(
                scheduler=trial.scheduler,
                mode=trial.mode,
                makespan_s=result.makespan_s,
                throughput_tok_s=result.throughput_tok_s,
                sharing=result.sharing,
                share_of_bound=result.share_of_bound,
                speedup=ratios[0],
                scenarios=dict(zip((main, *others), ratios, strict=False)),
                order=trial.order,
            )
        )
    return results


class _Runs:
    """Simulations of one pool, two at a time."""

    def __init__(self, pool: Pool, serving: Serving, progress: Progress | None) -> None:
        self._pool, self._serving, self._progress = pool, serving, progress
        self._done = self._asked = 0

    def run(self, asked: Sequence[tuple[str, FileOrder | None, str]]) -> list[SimulationResult]:
        """Simulate each (scheduler, order as a file or None, scenario); keep their order."""
        self._asked += len(asked)
        tasks = [self._task(*one) for one in asked]
        found: list[SimulationResult] = []
        if len(self._pool.workload) <= INLINE_REQUESTS or len(tasks) < 2:
            results = (_simulate(*task) for task in tasks)
        else:
            from joblib import Parallel, delayed

            parallel = Parallel(n_jobs=JOBS, return_as="generator")
            results = parallel(delayed(_simulate)(*task) for task in tasks)
        for result in results:
            found.append(result)
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._asked)
        return found

    def _task(
        self, scheduler: str, order: FileOrder | None, scenario: str
    ) -> tuple[Serving, Workload, str | Scheduler, str | OutputEstimator]:
        lengths = self._pool.lengths
        outputs = lengths.scenarios[scenario]
        workload = self._pool.workload
        if scenario != lengths.main or outputs is not workload.output_tokens:
            workload = replace(workload, output_tokens=outputs)
        knowledge = lengths.knowledge(scheduler) if order is None else lengths.known
        return self._serving, workload, order or scheduler, knowledge


def _simulate(
    serving: Serving,
    workload: Workload,
    scheduler: str | Scheduler,
    knowledge: str | OutputEstimator,
) -> SimulationResult:
    return serving.simulate(workload, scheduler, knowledge)
