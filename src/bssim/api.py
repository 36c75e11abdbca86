"""The Python API: load a workload, a model, a GPU and an engine, and simulate.

Every function takes names or objects. `bssim` exports all of them and imports this module at first
use, so ``import bssim`` stays cheap.
"""

from pathlib import Path
from typing import Literal

from bssim.cost_models.hardware import HardwareSpec, load_hardware
from bssim.cost_models.llm import LLMSpec, load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.cost_models.step_cost import CostModel
from bssim.sim.engine import EngineConfig, load_preset
from bssim.sim.result import SimulationResult
from bssim.sim.schedulers import Scheduler
from bssim.sim.simulate import simulate as simulate_pool
from bssim.sim.workload import Workload
from bssim.sim.workload import load_workload as load_pool
from bssim.sim.workload.readers import ReaderOptions

__all__ = ["load_engine", "load_hardware", "load_model", "load_workload", "simulate"]


def load_workload(
    name_or_path: str | Path,
    *,
    num_requests: int | None = None,
    seed: int = 0,
    format: str | None = None,
    tokenizer: str | None = None,
    default_output_tokens: int | None = None,
    max_prompt_tokens: int | None = None,
    max_output_tokens: int | None = None,
) -> Workload:
    """Return a workload by name or from a file; the same arguments give the same arrays.

    Args:
        name_or_path: ``trace1`` .. ``trace4``, a source such as ``sharegpt``, ``fixed:PxD``
            (requests with P prompt and D output tokens), or a trace file, plain or gzip.
        num_requests: Size of the pool. None: 400,000 for a built-in workload, all of a file. A
            smaller number samples a file without replacement and keeps its order.
        seed: Random seed.
        format: Format of a file; None finds it from the first line.
        tokenizer: For batch files with text: a ``tokenizer.json``, a model folder, or ``bytes:4``
            (four bytes are a token).
        default_output_tokens: For batch files: the cap of lines without one.
        max_prompt_tokens: Cut longer prompts of a file; a note counts them.
        max_output_tokens: Cut longer outputs of a file; a note counts them.

    Raises:
        InputError: for a name that is neither known nor a file, for an option of files given with
            a built-in name, and for errors in the file.

    >>> len(bssim.load_workload("trace1", num_requests=1000))
    1000
    """
    options = ReaderOptions(
        format, tokenizer, default_output_tokens, max_prompt_tokens, max_output_tokens
    )
    return load_pool(name_or_path, options, num_requests=num_requests, seed=seed)


def load_model(
    name_or_path: str | Path,
    *,
    dtype: str | None = None,
    quantization: str | None = None,
    kv_cache_dtype: str | None = None,
) -> LLMSpec:
    """Return a model by name, or from a YAML file, a ``config.json`` or its folder.

    ``dtype``, ``quantization`` and ``kv_cache_dtype`` are vLLM's options. None keeps the model's
    own setting; ``quantization="none"`` selects its plain weights. Raises InputError for an unknown
    name, and for a config or a precision that cannot be priced.

    >>> bssim.load_model("llama-3-8b").num_params
    8030261248
    >>> bssim.load_model("llama-3-8b", quantization="fp8").weight_bytes
    9081200640
    """
    return load_llm(
        name_or_path, dtype=dtype, quantization=quantization, kv_cache_dtype=kv_cache_dtype
    )


def load_engine(preset: str, **knobs: object) -> EngineConfig:
    """Return an engine preset with some knobs replaced; knobs have vLLM's names.

    Raises InputError for an unknown preset or knob, and for a value out of range.

    >>> bssim.load_engine("vllm", max_num_seqs=512).max_num_seqs
    512
    """
    return load_preset(preset).with_settings(dict(knobs))


def simulate(
    workload: Workload | str | Path,
    scheduler: Scheduler | str = "blendserve",
    *,
    model: LLMSpec | str | Path = "llama-3-8b",
    hardware: HardwareSpec | str | Path = "a100-80gb",
    engine: EngineConfig | str = "nanoflow",
    cost_model: CostModel | str = "roofline",
    output_lengths: str = "sampled",
    num_requests: int | None = None,
    seed: int = 0,
    tp: int = 1,
    dp: int = 1,
    disaggregation: str | None = None,
    record_timeline: bool = False,
    on_oversize: Literal["error", "drop"] = "error",
) -> SimulationResult:
    """Simulate one workload under one scheduler, with the defaults of ``bssim simulate``.

    Args:
        workload: A name (``trace1``), a trace file, or a `Workload`.
        scheduler: A name of ``bssim schedulers``, or an object with a ``plan`` method.
        model: What `load_model` takes, or its result.
        hardware: What `load_hardware` takes, or its result.
        engine: A preset, or the result of `load_engine`.
        cost_model: ``roofline``, ``silicon``, ``paper``, ``fitted:FILE``, or an object.
        output_lengths: What the scheduler knows about output lengths.
        num_requests: Size of the pool; None: 400,000 for a built-in workload, all of a file.
        seed: Random seed.
        tp: GPUs per replica.
        dp: Number of replicas.
        disaggregation: Prefill and decode replicas, such as ``1P2D``.
        record_timeline: Keep every step in ``result.timelines``.
        on_oversize: Whether to refuse or drop requests that can never fit the KV cache.

    Returns:
        The result: seconds, tokens/s, sharing, bounds, and the schedule.

    Raises:
        InputError: for wrong names or values, and for a model that does not fit its GPUs.

    >>> result = bssim.simulate("trace1", "dfs", engine="vllm", num_requests=500)
    >>> round(result.share_of_bound, 2) <= 1
    True
    """
    llm = model if isinstance(model, LLMSpec) else load_model(model)
    device = hardware if isinstance(hardware, HardwareSpec) else load_hardware(hardware)
    config = load_preset(engine) if isinstance(engine, str) else engine
    if not isinstance(workload, Workload):
        workload = load_workload(workload, num_requests=num_requests, seed=seed)
    return simulate_pool(
        workload,
        scheduler=scheduler,
        llm=llm,
        hardware=device,
        engine=config,
        cost_model=(
            make_cost_model(cost_model, llm, device, tp=tp, engine=config.costs())
            if isinstance(cost_model, str)
            else cost_model
        ),
        output_lengths=output_lengths,
        seed=seed,
        tp=tp,
        dp=dp,
        disaggregation=disaggregation,
        record_timeline=record_timeline,
        on_oversize=on_oversize,
    )
