"""Measure a machine's operators with torch: the numbers behind a hardware profile of your own.

GEMMs over the model's weight shapes, prefill and decode attention, and a copy for the bandwidth;
on CUDA timed by events, on a CPU by the clock. All repetitions of all cases run in one random
order, so that a slow spell of the machine does not fall on one case, and caches are overwritten
before each. torch is imported when measuring starts.
"""

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bssim.cost_models.llm import LLMSpec
from bssim.cost_models.operators import dense_gemms, lm_head_gemm
from bssim.errors import InputError

WARM_UPS = 1
COPY_BYTES = 2**28
FLUSH_BYTES = 2**28
"""Overwritten before every repetition: larger than any cache."""


@dataclass(frozen=True, slots=True)
class Case:
    """One operator at one size, on one device."""

    kind: str
    """``gemm``, ``prefill_attention``, ``decode_attention`` or ``copy``."""
    sizes: tuple[int, ...]
    """gemm: rows, n, k; attention: requests, tokens (of a prompt, or of context); copy: bytes."""
    held_out: bool = False
    """Measured to check the profile, not to make it."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One case's time."""

    case: Case
    seconds: float
    """Median over repetitions."""
    spread: float
    """Half the range of the middle half of the repetitions, over the median."""


@dataclass(frozen=True, slots=True)
class SizePlan:
    """The sizes to measure; those of ``held_out`` fields only check the result."""

    rows: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    held_out_rows: tuple[int, ...] = (2, 32, 512)
    requests: tuple[int, ...] = (1, 8, 64)
    tokens: tuple[int, ...] = (64, 256, 1024)
    held_out_tokens: tuple[int, ...] = (512,)


def cases(llm: LLMSpec, plan: SizePlan, max_bytes: float) -> list[Case]:
    """Return what to measure for ``llm``, without what needs more than ``max_bytes`` of memory."""
    shapes = sorted({(gemm.n, gemm.k) for gemm in (*dense_gemms(llm, 1), lm_head_gemm(llm, 1))})
    size = llm.dtype_bytes
    found = [Case("copy", (COPY_BYTES,))]
    for n, k in shapes:
        found += [
            Case("gemm", (rows, n, k), rows in plan.held_out_rows)
            for rows in (*plan.rows, *plan.held_out_rows)
            if (n * k + rows * (n + k)) * size <= max_bytes
        ]
    token_bytes = (2 * llm.num_attention_heads + 2 * llm.num_kv_heads) * llm.head_dim * size
    for kind in ("prefill_attention", "decode_attention"):
        for requests in plan.requests:
            for tokens in (*plan.tokens, *plan.held_out_tokens):
                if requests * tokens * token_bytes <= max_bytes:
                    held_out = tokens in plan.held_out_tokens
                    found.append(Case(kind, (requests, tokens), held_out))
    return found


def measure(
    llm: LLMSpec,
    *,
    device: str = "cpu",
    plan: SizePlan | None = None,
    repeats: int = 7,
    max_bytes: float = 2**30,
    rng: np.random.Generator,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Measurement]:
    """Return the median time of every case of ``llm`` on ``device`` (``cpu`` or ``cuda``).

    ``progress`` is told how many of all repetitions are done. Raises InputError where torch is not
    installed, the device is not there, or the model has MLA or MoE layers.
    """
    torch = _torch(device)
    if llm.is_mla or llm.is_moe:
        raise InputError(
            f"calibrate: found {llm.name}; expected a dense model without MLA: its operators are "
            "the ones measured"
        )
    plan = plan or SizePlan()
    work = cases(llm, plan, max_bytes)
    dtype = {4: torch.float32, 2: torch.bfloat16}[llm.dtype_bytes]
    flush = torch.empty(FLUSH_BYTES // 4, dtype=torch.float32, device=device)
    seconds: dict[Case, list[float]] = {case: [] for case in work}
    order = list(rng.permutation(np.repeat(np.arange(len(work)), repeats)))
    with torch.inference_mode():
        for done, index in enumerate(order):
            case = work[int(index)]
            run = _operator(torch, case, llm, device, dtype)
            for _ in range(WARM_UPS):
                run()
            flush.zero_()
            seconds[case].append(_timed(torch, device, run))
            progress(done + 1, len(order))
    return list(_summaries(seconds))


def device_name(device: str) -> str:
    """Return torch's version and what it runs on, for a profile's source."""
    torch = _torch(device)
    if device == "cuda":
        return f"{torch.__version__}, {torch.cuda.get_device_name()}"
    return f"{torch.__version__}, {platform.machine()} CPU, {torch.get_num_threads()} threads"


def _torch(device: str) -> Any:
    try:
        import torch
    except ImportError:
        raise InputError(
            "calibrate: package torch is not installed; expected it from `pip install "
            "'bssim[torch]'`"
        ) from None
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("calibrate: --device: found 'cuda', but torch sees no GPU; expected 'cpu'")
    if device not in ("cpu", "cuda"):
        raise InputError(f"calibrate: --device: found {device!r}; expected 'cpu' or 'cuda'")
    return torch


def _operator(
    torch: Any, case: Case, llm: LLMSpec, device: str, dtype: Any
) -> Callable[[], object]:
    """Return the operator of ``case`` on fresh data."""

    def data(*shape: int) -> Any:
        return torch.randn(*shape, device=device, dtype=dtype)

    if case.kind == "copy":
        source = torch.ones(case.sizes[0] // 4, dtype=torch.float32, device=device)
        target = torch.empty_like(source)
        return lambda: target.copy_(source)
    if case.kind == "gemm":
        rows, n, k = case.sizes
        inputs, weights = data(rows, k), data(n, k)
        return lambda: torch.nn.functional.linear(inputs, weights)
    requests, tokens = case.sizes
    causal = case.kind == "prefill_attention"
    query = data(requests, llm.num_attention_heads, tokens if causal else 1, llm.head_dim)
    key = data(requests, llm.num_kv_heads, tokens, llm.head_dim)
    value = data(requests, llm.num_kv_heads, tokens, llm.head_dim)
    grouped = llm.num_kv_heads != llm.num_attention_heads
    attention = torch.nn.functional.scaled_dot_product_attention
    return lambda: attention(query, key, value, is_causal=causal, enable_gqa=grouped)


def _timed(torch: Any, device: str, run: Callable[[], object]) -> float:
    """Return the seconds of one run."""
    if device == "cpu":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def _summaries(seconds: dict[Case, list[float]]) -> Iterator[Measurement]:
    for case, times in seconds.items():
        low, median, high = np.quantile(times, (0.25, 0.5, 0.75))
        yield Measurement(case, float(median), float((high - low) / 2 / median))
