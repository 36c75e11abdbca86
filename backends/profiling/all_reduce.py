"""Time all-reduces with torch.distributed, the communication of tensor parallelism.

There is one process per GPU (NCCL), or several on a CPU (gloo), which is slow but runs anywhere.
Message sizes are those of a step: tokens x hidden size. All repetitions of all sizes and groups run
in one random order. A repetition is several all-reduces in a row, because the processes do not
start at the same moment, and a single all-reduce would mostly measure that delay. Caches are not
cleared, because an engine has also just written the message. torch is imported when measuring
starts.
"""

import json
import os
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bssim.backends.profiling.operators import Case, Measurement, import_torch, timed, torch_dtype
from bssim.cost_models.llm import LLMSpec
from bssim.errors import InputError

LAUNCHES = 10
"""All-reduces per repetition."""
WARM_UPS = 2
"""All-reduces before each repetition; they also synchronise the processes."""
PATIENCE = timedelta(minutes=2)
"""How long to wait for a process that does not answer."""


@dataclass(frozen=True, slots=True)
class AllReducePlan:
    """Tokens per message; those in ``held_out_tokens`` only check the result."""

    tokens: tuple[int, ...] = (1, 8, 64, 256, 1024, 4096)
    held_out_tokens: tuple[int, ...] = (32, 512, 2048)


@dataclass(frozen=True, slots=True)
class Job:
    """The input of each process."""

    device: str
    processes: int
    dtype_bytes: int
    repetitions: tuple[tuple[int, int], ...]
    """(processes in the group, message bytes) of each repetition, in execution order."""
    folder: Path
    """Where processes find each other and write their seconds as ``RANK.json``."""


def group_sizes(processes: int) -> list[int]:
    """Return the group sizes to measure: powers of two from 2 up, and all ``processes``."""
    powers = [2**i for i in range(1, processes.bit_length()) if 2**i < processes]
    return [*powers, processes] if processes > 1 else []


def all_reduce_processes(device: str, wanted: int | None) -> int:
    """Return the number of processes that all-reduce on this machine; 1 means no all-reduce.

    ``wanted`` None means every GPU, or 1 on a CPU. Raises InputError if ``wanted`` exceeds the
    number of GPUs or cores.
    """
    torch = import_torch(device)
    there = torch.cuda.device_count() if device == "cuda" else os.cpu_count() or 1
    if wanted is None:
        return int(there) if device == "cuda" else 1
    if wanted > there:
        what = "GPUs that torch sees" if device == "cuda" else "cores of this CPU"
        raise InputError("calibrate: --all-reduce", wanted, f"at most {there}: {what}")
    return wanted


def backend_name(device: str) -> str:
    """Return the library that runs the all-reduces, with the version of NCCL."""
    if device == "cpu":
        return "gloo"
    version = import_torch(device).cuda.nccl.version()
    return f"nccl {'.'.join(map(str, version))}"


def measure_all_reduce(
    llm: LLMSpec,
    *,
    device: str,
    processes: int,
    plan: AllReducePlan | None = None,
    repeats: int = 7,
    rng: np.random.Generator,
) -> list[Measurement]:
    """Return the seconds of an all-reduce of every message, in groups of up to ``processes``.

    These are wall-clock seconds, averaged over the processes of a group. With one process, the
    result is empty. Raises InputError if the processes cannot reach each other.
    """
    torch = import_torch(device)
    plan = plan or AllReducePlan()
    work = [
        Case("all_reduce", (size, tokens * llm.hidden_size * llm.dtype_bytes), held_out)
        for size in group_sizes(processes)
        for held_out, rows in ((False, plan.tokens), (True, plan.held_out_tokens))
        for tokens in rows
    ]
    if not work:
        return []
    order = [work[int(i)] for i in rng.permutation(np.repeat(np.arange(len(work)), repeats))]
    sizes = tuple((case.sizes[0], case.sizes[1]) for case in order)
    with TemporaryDirectory() as folder:
        job = Job(device, processes, llm.dtype_bytes, sizes, Path(folder))
        try:
            torch.multiprocessing.spawn(run_process, args=(job,), nprocs=processes)
        except (
            torch.multiprocessing.ProcessRaisedException,
            torch.multiprocessing.ProcessExitedException,
        ) as error:
            raise InputError.saying(
                "calibrate",
                f"all-reduce of {processes} processes failed: "
                f"{str(error).strip().splitlines()[-1]}",
                "them to reach each other (--all-reduce 1 leaves this out)",
            ) from error
        found = [json.loads((job.folder / f"{rank}.json").read_text()) for rank in range(processes)]
    times: dict[Case, list[float]] = {case: [] for case in work}
    for i, case in enumerate(order):
        times[case].append(float(np.mean([seconds[i] for seconds in found[: case.sizes[0]]])))
    return [Measurement(case, tuple(seconds)) for case, seconds in times.items()]


def run_process(rank: int, job: Job) -> None:
    """Run every repetition of ``job`` whose group includes this rank, and write the seconds."""
    torch = import_torch(job.device)
    if job.device == "cuda":
        torch.cuda.set_device(rank)
    dist = torch.distributed
    dist.init_process_group(
        "nccl" if job.device == "cuda" else "gloo",
        init_method=(job.folder / "meeting").as_uri(),
        rank=rank,
        world_size=job.processes,
        timeout=PATIENCE,
    )
    sizes = group_sizes(job.processes)
    groups = {size: dist.new_group(range(size)) for size in sizes}  # a collective call
    largest = max(size for _, size in job.repetitions) // job.dtype_bytes
    # Zeros, because repeated sums of other numbers would overflow.
    message = torch.zeros(largest, dtype=torch_dtype(torch, job.dtype_bytes), device=job.device)

    def launch(size: int, data: object, times: int) -> None:
        for _ in range(times):
            dist.all_reduce(data, group=groups[size])

    seconds: list[float | None] = []
    for size, length in job.repetitions:
        if rank >= size:
            seconds.append(None)
            continue
        data = message[: length // job.dtype_bytes]
        launch(size, data, WARM_UPS)
        took = timed(torch, job.device, "wall", partial(launch, size, data, LAUNCHES))
        seconds.append(took / LAUNCHES)
    (job.folder / f"{rank}.json").write_text(json.dumps(seconds))
    dist.destroy_process_group()
