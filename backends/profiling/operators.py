"""Measure the operators of a machine with torch, for a hardware profile.

The operators are GEMMs with the weight shapes of the model, prefill and decode attention, sums of
two vectors (the elementwise kernel), the kernels of `token_kernels` that check its curve, and a
copy for the bandwidth. CUDA events time them on a GPU, the clock on a CPU. All repetitions of all
cases run in one random order, so that a slow period of
the machine does not affect only one case. Caches are overwritten before each repetition. torch is
imported when measuring starts.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from bssim.backends.profiling.machine import cpu_name, nvidia_driver
from bssim.backends.profiling.token_kernels import KERNEL_ROWS, KERNELS, kernel, kernel_bytes
from bssim.cost_models.llm import LLMSpec, Shard
from bssim.cost_models.operators import dense_gemms, lm_head_gemm, mlp_gemms
from bssim.errors import InputError

WARM_UPS = 1
Clock = Literal["wall", "process"]
"""The clock on a CPU; ``process`` is CPU time, for one thread on a busy machine."""
COPY_BYTES = 2**28
ELEMENTWISE_BYTES = tuple(3 * 2**power for power in (12, 16, 18, 20, 22, 24, 26))
HELD_OUT_BYTES = (3 * 2**19, 3 * 2**23)
"""Bytes that each sum of two vectors reads and writes."""
FLUSH_BYTES = 2**28
"""Bytes overwritten before every repetition; more than any cache."""


@dataclass(frozen=True, slots=True)
class Case:
    """One operator at one size, on one device."""

    kind: str
    """``gemm``, ``prefill_attention``, ``decode_attention``, ``elementwise``, ``copy``,
    ``all_reduce``, or one of `token_kernels.KERNELS`."""
    sizes: tuple[int, ...]
    """gemm: rows, n, k; attention: requests, tokens (of a prompt, or of context); copy and
    elementwise: bytes; all_reduce: processes, message bytes; token kernels: rows."""
    held_out: bool = False
    """Used only to check the profile, not to build it."""


@dataclass(frozen=True)
class Measurement:
    """The repetitions of one case."""

    case: Case
    times: tuple[float, ...]
    """Seconds of each repetition, in execution order."""

    @cached_property
    def seconds(self) -> float:
        """Median over repetitions."""
        return float(np.median(self.times))

    @property
    def spread(self) -> float:
        """Half the interquartile range of the repetitions, over the median."""
        return half_range(self.times)


def half_range(times: tuple[float, ...]) -> float:
    """Return half the interquartile range of ``times``, over their median."""
    low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
    return float((high - low) / 2 / median)


@dataclass(frozen=True, slots=True)
class SizePlan:
    """The sizes to measure; those in ``held_out`` fields only check the result."""

    rows: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    held_out_rows: tuple[int, ...] = (2, 32, 512)
    requests: tuple[int, ...] = (1, 8, 64)
    tokens: tuple[int, ...] = (64, 256, 1024)
    held_out_tokens: tuple[int, ...] = (512,)
    max_bytes: float = 2**30
    """The most memory for the data of one operator; sizes that need more are left out."""


GPU_PLAN = SizePlan(
    rows=(1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    held_out_rows=(16, 96, 768, 3072),
    requests=(1, 8, 64, 256),
    tokens=(128, 512, 2048, 4096),
    held_out_tokens=(1024,),
    max_bytes=2**33,
)
"""Sizes for a GPU with 24 GB or more; measuring them takes one or two minutes."""


def cases(llm: LLMSpec, plan: SizePlan) -> list[Case]:
    """Return the cases to measure for ``llm``, without those that need too much memory."""
    whole = Shard(llm)
    gemms = [*dense_gemms(whole), lm_head_gemm(whole)]
    if llm.is_moe:  # the matrices of one expert
        gemms += mlp_gemms(whole, "experts", llm.moe_intermediate_size, llm.num_moe_layers)
    shapes = sorted({(gemm.n, gemm.k) for gemm in gemms})
    size = llm.dtype_bytes
    found = [Case("copy", (COPY_BYTES,))]
    for n, k in shapes:
        found += [
            Case("gemm", (rows, n, k), rows in plan.held_out_rows)
            for rows in (*plan.rows, *plan.held_out_rows)
            if (n * k + rows * (n + k)) * size <= plan.max_bytes
        ]
    found += [
        Case("elementwise", (moved,), moved in HELD_OUT_BYTES)
        for moved in (*ELEMENTWISE_BYTES, *HELD_OUT_BYTES)
    ]
    found += [
        Case(name, (rows,), held_out=True)
        for name in KERNELS
        for rows in KERNEL_ROWS
        if 0 < 3 * kernel_bytes(name, rows, llm) <= plan.max_bytes
    ]
    token_bytes = (2 * llm.num_attention_heads + 2 * llm.num_kv_heads) * llm.head_dim * size
    for kind in ("prefill_attention", "decode_attention"):
        for requests in plan.requests:
            for tokens in (*plan.tokens, *plan.held_out_tokens):
                if requests * tokens * token_bytes <= plan.max_bytes:
                    held_out = tokens in plan.held_out_tokens
                    found.append(Case(kind, (requests, tokens), held_out))
    return found


def measure(
    llm: LLMSpec,
    *,
    device: str = "cpu",
    plan: SizePlan | None = None,
    repeats: int = 7,
    clock: Clock = "wall",
    rng: np.random.Generator,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Return the times of every case of ``llm`` on ``device`` (``cpu`` or ``cuda``).

    ``progress`` receives the number of finished repetitions and of all repetitions. Raises
    InputError if torch is not installed, the device does not exist, or the model has MLA.
    """
    torch = import_torch(device)
    check_measured(llm)
    work = cases(llm, plan or (SizePlan() if device == "cpu" else GPU_PLAN))
    flush = torch.empty(FLUSH_BYTES // 4, dtype=torch.float32, device=device)
    seconds: dict[Case, list[float]] = {case: [] for case in work}
    order = list(rng.permutation(np.repeat(np.arange(len(work)), repeats)))
    with torch.inference_mode():
        for done, index in enumerate(order):
            case = work[int(index)]
            run = operator(torch, case, llm, device)
            for _ in range(WARM_UPS):
                run()
            flush.zero_()
            seconds[case].append(timed(torch, device, clock, run))
            if progress is not None:
                progress(done + 1, len(order))
    return [Measurement(case, tuple(times)) for case, times in seconds.items()]


def device_facts(device: str) -> dict[str, object]:
    """Return facts about the device for a profile: name, driver, versions, threads."""
    torch = import_torch(device)
    facts: dict[str, object] = {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    if device == "cuda":
        return {
            "device": torch.cuda.get_device_name(),
            "driver": nvidia_driver(),
            "cuda": torch.version.cuda,
            **facts,
        }
    return {"device": cpu_name(), "threads": torch.get_num_threads(), **facts}


def import_torch(device: str) -> Any:
    """Return torch; raises InputError if it is not installed or does not see ``device``."""
    if device not in ("cpu", "cuda"):
        raise InputError("calibrate: --device", repr(device), "'cpu' or 'cuda'")
    try:
        import torch
    except ImportError:
        raise InputError.saying(
            "calibrate", "package torch is not installed", "it from `pip install 'bssim[torch]'`"
        ) from None
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("calibrate: --device", "'cuda', but torch sees no GPU", "'cpu'")
    return torch


def check_measured(llm: LLMSpec) -> None:
    """Raise InputError for a model with operators that are not measured."""
    if llm.is_mla:
        raise InputError(
            "calibrate", llm.name, "a model without MLA, because only its operators are timed"
        )


def torch_dtype(torch: Any, size: int) -> Any:
    """Return the floating-point type with ``size`` bytes."""
    return {4: torch.float32, 2: torch.bfloat16}[size]


def operator(torch: Any, case: Case, llm: LLMSpec, device: str) -> Callable[[], object]:
    """Return the operator of ``case`` on new data of the model's type."""
    dtype = torch_dtype(torch, llm.dtype_bytes)

    def data(*shape: int) -> Any:
        return torch.randn(*shape, device=device, dtype=dtype)

    if case.kind == "copy":
        source = torch.ones(case.sizes[0] // 4, dtype=torch.float32, device=device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)
    if case.kind == "elementwise":
        first, second = (data(case.sizes[0] // 3 // llm.dtype_bytes) for _ in range(2))
        result = torch.empty_like(first)
        return lambda: torch.add(first, second, out=result)
    if case.kind == "gemm":
        rows, n, k = case.sizes
        inputs, weights = data(rows, k), data(n, k)
        return lambda: torch.nn.functional.linear(inputs, weights)
    if case.kind in KERNELS:
        return kernel(torch, case.kind, case.sizes[0], llm, device, data)
    requests, tokens = case.sizes
    causal = case.kind == "prefill_attention"
    query = data(requests, llm.num_attention_heads, tokens if causal else 1, llm.head_dim)
    key = data(requests, llm.num_kv_heads, tokens, llm.head_dim)
    value = data(requests, llm.num_kv_heads, tokens, llm.head_dim)
    grouped = llm.num_kv_heads != llm.num_attention_heads
    attention = torch.nn.functional.scaled_dot_product_attention
    return lambda: attention(query, key, value, is_causal=causal, enable_gqa=grouped)


def timed(torch: Any, device: str, clock: Clock, run: Callable[[], object]) -> float:
    """Return the seconds of one run, from the clock on a CPU or from events on a GPU."""
    if device == "cpu":
        now = time.perf_counter if clock == "wall" else time.process_time
        start = now()
        run()
        return now() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
