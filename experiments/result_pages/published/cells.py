"""A published row as a cell, with the load, the limits and the memory of the run.

TensorRT-LLM's limits are not round numbers. `trtllm-bench` derives the largest batch and the tokens
of a step from the mean lengths of its data set and from the memory that a model leaves; the engine
then fills the memory that is really free with KV blocks. Both rules are repeated here from
`tensorrt_llm/bench/build/tuning.py` and from the log that `docs/source/reference/memory.md` prints.
"""

import math
from functools import cache
from typing import Any

from bssim.cost_models.hardware import HardwareSpec, load_hardware
from bssim.cost_models.llm import LLMSpec, Shard, load_llm
from bssim.experiments.result_pages.published.measurements import Measurement, Release
from bssim.experiments.sweeps import Cell, WorkloadRef
from bssim.sim.engine import load_preset

GIB = 2**30
VISIBLE = 79.10 / 80
"""Share of the memory that CUDA reports on an 80 GB GPU."""
RUNTIME_BYTES = 0.75 * GIB
"""CUDA context and libraries: the part of the log's total that is not explained otherwise."""
PLANNED_KV_SHARE = 0.95
"""`trtllm-bench` plans with this share of the memory beside the weights, whatever runs later."""

PRECISIONS: dict[str, dict[str, str]] = {
    "fp16": {"dtype": "float16"},
    "fp8": {"dtype": "float16", "quantization": "fp8", "kv_cache_dtype": "fp8"},
    "mxfp4": {"quantization": "mxfp4"},
    "bf16": {"dtype": "bfloat16"},
    "fp8-kv16": {"dtype": "bfloat16", "quantization": "fp8"},
}
"""A row's precision in vLLM's options."""


def cell_of(row: Measurement, release: Release, num_requests: int | None = None) -> Cell:
    """Return the cell that simulates a row.

    ``num_requests`` caps its requests (a trial). Raises InputError for a model, a GPU or a
    precision that bssim does not have.
    """
    llm, gpu = _model(row.model, row.precision), _gpu(row.gpu)
    count = row.num_requests if num_requests is None else min(num_requests, row.num_requests)
    return Cell(
        config="published",
        workload=WorkloadRef(f"fixed:{row.input_tokens}x{row.output_tokens}", count, seed=0),
        scheduler="fcfs",
        llm=llm,
        hardware=gpu,
        engine=load_preset(release.preset).with_settings(
            engine_settings(row, release, llm, gpu), where=f"releases.yaml: {row.release}"
        ),
        output_lengths="oracle",
        tp=row.tp,
    )


@cache
def _model(name: str, precision: str) -> LLMSpec:
    return load_llm(name, **PRECISIONS[precision])


@cache
def _gpu(name: str) -> HardwareSpec:
    return load_hardware(name)


def engine_settings(
    row: Measurement, release: Release, llm: LLMSpec, gpu: HardwareSpec
) -> dict[str, Any]:
    """Return the engine fields of a row's run, limits and memory included."""
    settings = release.settings | release.gpu_settings.get(row.gpu, {})
    if release.limits == "trtllm-bench":
        batch, tokens = step_limits(row, llm, gpu)
        if settings.get("enable_chunked_prefill") is False:
            tokens = max(tokens, row.input_tokens + batch)
        settings |= {"max_num_seqs": batch, "max_num_batched_tokens": max(tokens, batch)}
    used = (1 - VISIBLE) * gpu.memory_bytes + RUNTIME_BYTES + _buffer_bytes(row, llm, settings)
    used += (1 - release.utilization) * VISIBLE * gpu.memory_bytes
    settings["kv_reserve"] = used / gpu.memory_bytes
    settings["version"] = release.version
    return settings


def step_limits(row: Measurement, llm: LLMSpec, gpu: HardwareSpec) -> tuple[int, int]:
    """Return `trtllm-bench`'s largest batch and tokens of a step for a row's lengths.

    It asks how many requests of full length fit beside the weights, rounds that up, and lets a step
    hold the prompts that keep so many running.
    """
    free = row.tp * gpu.memory_bytes - llm.weight_bytes
    sequence = row.input_tokens + row.output_tokens
    per_token = llm.kv_bytes_per_token * row.tp / Shard(llm, row.tp).kv_shards
    fits = max(PLANNED_KV_SHARE * free / (per_token * sequence), 0.0)
    batch = min(fits, 4096.0)
    tokens = min(batch * (1 + row.input_tokens / row.output_tokens), 32768.0)
    if batch < 256:
        max_batch = max(64, 32 * math.ceil(batch / 32))
    else:
        multiple = 128 if batch < 1024 else 256
        max_batch = multiple * math.ceil(batch / multiple)
    if tokens < 4096:
        return max_batch, max(2048, 256 * math.ceil(tokens / 256))
    multiple = 512 if tokens < 8192 else 1024
    return max_batch, multiple * math.ceil(tokens / multiple)


def _buffer_bytes(row: Measurement, llm: LLMSpec, settings: dict[str, Any]) -> float:
    """Return the bytes of activations and logits that a GPU sets aside for the largest step.

    Per token the residual, Q, K and V, the output of attention and the two halves of the MLP and
    their product, all in 16 bits: 1.1 GB for 8,192 tokens of an 8B model, as in the log. Each
    request adds a row of 32-bit logits.
    """
    width = max(llm.intermediate_size, llm.experts_per_token * llm.moe_intermediate_size)
    values = 6 * llm.hidden_size + 3 * width / row.tp
    logits = 4 * llm.vocab_size * int(settings["max_num_seqs"])
    return 2 * values * int(settings["max_num_batched_tokens"]) + logits
