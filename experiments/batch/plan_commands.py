"""The commands that run the files of a plan on the engine that was simulated."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from bssim.experiments.batch.serving import Serving
from bssim.experiments.batch.writing import STDOUT
from bssim.sim.engine import load_preset
from bssim.sim.workload.readers import BatchFile

GPUS_PER_MACHINE = 8
ALWAYS = ("max_num_seqs", "max_num_batched_tokens")
"""Fields whose flags are always given, because vLLM's own defaults depend on the GPU."""
FLAGS = {
    "max_num_seqs": "max-num-seqs",
    "max_num_batched_tokens": "max-num-batched-tokens",
    "pipeline_parallel_size": "pipeline-parallel-size",
    "max_model_len": "max-model-len",
    "block_size": "block-size",
    "num_gpu_blocks": "num-gpu-blocks-override",
    "watermark": "watermark",
    "enable_prefix_caching": "enable-prefix-caching",
    "enable_chunked_prefill": "enable-chunked-prefill",
    "long_prefill_token_threshold": "long-prefill-token-threshold",
    "policy": "scheduling-policy",
    "async_scheduling": "async-scheduling",
    "enforce_eager": "enforce-eager",
    "enable_expert_parallel": "enable-expert-parallel",
    "disable_custom_all_reduce": "disable-custom-all-reduce",
}
"""Fields of `EngineConfig` -> flags of vLLM 0.32 with the same values. ``kv_reserve`` is apart."""


def plan_commands(files: Sequence[Path], batch: BatchFile, serving: Serving) -> tuple[str, ...]:
    """Return the command that runs each file, if the engine has one.

    Several replicas get GPUs of their own, numbered on machines with `GPUS_PER_MACHINE`.
    """
    if serving.engine.name != "vllm":
        return ()
    model = max(batch.models, key=batch.models.__getitem__, default=serving.llm.name)
    flags = engine_flags(serving)
    gpus = serving.tp * serving.engine.pipeline_parallel_size
    commands = []
    # `vllm run-batch` 0.32 answers only chat; `bssim run` with fcfs keeps the file's order.
    chat = batch.completions == 0
    for replica, file in enumerate(files):
        name = Path("ordered.jsonl") if file == STDOUT else file
        unpack = ""
        if name.suffix == ".gz":
            unpack, name = f"gunzip --keep {shlex.quote(str(name))} && ", name.with_suffix("")
        results = name.with_name(name.name.removesuffix(".jsonl") + ".results.jsonl")
        names = [str(name), "-o", str(results)]
        if chat:
            words = ["vllm", "run-batch", "-i", *names, "--model", model, *flags]
        else:
            words = ["bssim", "run", *names, "--scheduler", "fcfs", "--model", model]
            words += ["--engine-args", shlex.join(flags)]
        own = _own_gpus(replica, gpus) if len(files) > 1 else ""
        commands.append(unpack + own + shlex.join(words))
    return tuple(commands)


def engine_flags(serving: Serving) -> list[str]:
    """Return the flags that give vLLM the simulated engine, parallelism and precision.

    Settings that are those of the preset ``vllm`` are left to vLLM's own defaults, except `ALWAYS`.
    A quantisation other than fp8 is left to the checkpoint, which must have it.
    """
    engine, preset, precision = serving.engine, load_preset("vllm"), serving.llm.precision
    found = []
    for field, flag in FLAGS.items():
        value = getattr(engine, field)
        if value is None or (value == getattr(preset, field) and field not in ALWAYS):
            continue
        if isinstance(value, bool):
            found.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            found += [f"--{flag}", str(value)]
    if engine.kv_reserve != preset.kv_reserve:
        found += ["--gpu-memory-utilization", f"{1 - engine.kv_reserve:g}"]
    if serving.tp > 1:
        found += ["--tensor-parallel-size", str(serving.tp)]
    if "precision" in serving.given:
        found += ["--dtype", precision.dtype]
    if precision.quantization == "fp8":  # vLLM can apply it to any checkpoint
        found += ["--quantization", "fp8"]
    if precision.kv_cache_dtype != "auto":
        found += ["--kv-cache-dtype", precision.kv_cache_dtype]
    return found


def _own_gpus(replica: int, gpus: int) -> str:
    """Return the assignment that gives a replica its GPUs; empty if it spans machines."""
    if gpus > GPUS_PER_MACHINE:
        return ""
    first = replica % (GPUS_PER_MACHINE // gpus) * gpus
    return f"CUDA_VISIBLE_DEVICES={','.join(map(str, range(first, first + gpus)))} "
