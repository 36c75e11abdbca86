"""vLLM's own V1 scheduler, driven without a model: what the `vllm` preset must equal.

Every request is queued at the start, as `LLM.generate` does. The "model" gives one token to each
request whose prefill is complete after the step, which is what a model runner does. Generated
tokens belong to one request and one position, so no two requests share a generated block.

Rows have the format of ``bssim simulate --steps``:

    {"step": 0, "scheduled": {"r0": 128}, "cached": {"r0": 48}, "preempted": [],
     "free_blocks": 291, "finished": []}

``finished`` names the requests whose last token this step computes, in scheduling order. Under
async scheduling they hold slot and blocks until the next step has been scheduled. A call of
``schedule()`` that schedules nothing and preempts nobody is no step.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from bssim.backends.vllm import admitting, base_scheduler, recording
from bssim.backends.vllm.scheduler import StepRow
from bssim.sim.engine import AdmissionPolicy, EngineConfig
from bssim.sim.workload import Workload, prompt_token_ids

VOCABULARY = 1 << 17
GENERATED_TOKEN = 1 << 40
"""Generated ids start here, above every vocabulary, a block of 2**20 for each request."""


@dataclass(frozen=True)
class OracleRequest:
    """What vLLM is told of a request."""

    request_id: str
    prompt: list[int]
    output_tokens: int
    priority: int = 0


@dataclass(frozen=True)
class OracleRun:
    """Steps, and the seconds vLLM spent on them (adding requests left out)."""

    rows: list[StepRow]
    seconds: float


def _model_folder() -> str:
    """Write the smallest config vLLM accepts; no weights are ever loaded."""
    folder = Path(mkdtemp(prefix="bssim-oracle-"))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 1 << 20,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


class Oracle:
    """Makes vLLM schedulers; parsing an engine configuration takes long and is done once."""

    def __init__(self) -> None:
        from vllm.engine.arg_utils import EngineArgs

        self._config = EngineArgs(
            model=_model_folder(),
            skip_tokenizer_init=True,
            load_format="dummy",
            dtype="bfloat16",
            max_model_len=1 << 20,
            block_size=16,
            max_num_seqs=8,
            max_num_batched_tokens=1 << 20,
            enforce_eager=True,
            num_gpu_blocks_override=16,
        ).create_engine_config()

    def scheduler(self, engine: EngineConfig, max_model_len: int) -> tuple[Any, Callable[..., Any]]:
        """Return a fresh scheduler with the knobs of ``engine``, and its block hasher."""
        import torch
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
        from vllm.v1.structured_output import StructuredOutputManager

        config = copy(self._config)
        config.scheduler_config = _with(
            config.scheduler_config,
            max_num_seqs=engine.max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            enable_chunked_prefill=engine.enable_chunked_prefill,
            long_prefill_token_threshold=engine.long_prefill_token_threshold,
            policy=engine.policy,
            watermark=engine.watermark,
            async_scheduling=engine.async_scheduling,
        )
        config.cache_config = _with(
            config.cache_config,
            block_size=engine.block_size,
            num_gpu_blocks=engine.num_gpu_blocks,
            enable_prefix_caching=engine.enable_prefix_caching,
        )
        config.model_config = _with(config.model_config, max_model_len=max_model_len)
        spec = FullAttentionSpec(
            block_size=engine.block_size, num_kv_heads=1, head_size=1, dtype=torch.float32
        )
        scheduler = admitting(recording(base_scheduler(engine.async_scheduling)))(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(
                num_blocks=engine.num_gpu_blocks,
                kv_cache_tensors=[],
                kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
            ),
            block_size=engine.block_size,
            structured_output_manager=StructuredOutputManager(config),
        )
        if not engine.enable_prefix_caching:
            return scheduler, None
        hash_fn = get_hash_fn_by_name("sha256")
        init_none_hash(hash_fn)
        return scheduler, get_request_block_hasher(engine.block_size, hash_fn)

    def run(
        self,
        requests: Iterable[OracleRequest],
        engine: EngineConfig,
        max_steps: int | None = None,
        policy: AdmissionPolicy | None = None,
    ) -> OracleRun:
        """Schedule until all is done, or for ``max_steps`` steps.

        ``policy`` admits in place of vLLM's waiting queue; it knows requests by their position.

        ``engine.max_model_len`` None means the longest request, as no request is longer.
        Raises RuntimeError where vLLM itself would never finish: a request larger than the cache.
        """
        from vllm import SamplingParams
        from vllm.v1.outputs import ModelRunnerOutput
        from vllm.v1.request import Request

        pool = list(requests)
        longest = max(len(r.prompt) + r.output_tokens for r in pool)
        scheduler, hasher = self.scheduler(engine, engine.max_model_len or longest)
        if policy is not None:
            position = {request.request_id: i for i, request in enumerate(pool)}
            scheduler.admit_from(policy, position.__getitem__)
        for i, request in enumerate(pool):
            scheduler.add_request(
                Request(
                    request_id=request.request_id,
                    prompt_token_ids=request.prompt,
                    sampling_params=SamplingParams(
                        max_tokens=request.output_tokens, ignore_eos=True, detokenize=False
                    ),
                    pooling_params=None,
                    arrival_time=float(i),
                    priority=request.priority,
                    block_hasher=hasher,
                )
            )
        generated = {r.request_id: GENERATED_TOKEN + (i << 20) for i, r in enumerate(pool)}
        in_flight: deque[tuple[Any, Any]] = deque()
        depth = 2 if engine.async_scheduling else 1
        empty = 0
        start = time.perf_counter()
        while scheduler.has_unfinished_requests() or in_flight:
            if scheduler.has_unfinished_requests():
                output = scheduler.schedule()
                ids = list(output.num_scheduled_tokens)
                empty = 0 if ids else empty + 1
                if empty > 3:
                    raise RuntimeError(f"step {len(scheduler.rows)}: a request exceeds the cache")
                sampled: list[list[int]] = []
                for request_id in ids:
                    sampled.append([])
                    if not scheduler.requests[request_id].is_prefill_chunk:
                        sampled[-1].append(generated[request_id])
                        generated[request_id] += 1
                tokens = ModelRunnerOutput(
                    req_ids=ids,
                    req_id_to_index={request_id: k for k, request_id in enumerate(ids)},
                    sampled_token_ids=sampled,
                )
                in_flight.append((output, tokens))
                if len(in_flight) < depth:
                    continue
            scheduler.update_from_output(*in_flight.popleft())
            if max_steps is not None and len(scheduler.rows) >= max_steps:
                break
        return OracleRun(scheduler.rows, time.perf_counter() - start)


def _with(config: Any, **fields: Any) -> Any:
    """Return a copy of a vLLM configuration with some fields set, its checks left out."""
    changed = copy(config)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def oracle_requests(workload: Workload, order: Iterable[int] | None = None) -> list[OracleRequest]:
    """Return the requests of a pool in the order in which vLLM is to receive them."""
    return [
        OracleRequest(
            workload.request_id(i),
            prompt_token_ids(workload, i, vocab_size=VOCABULARY).tolist(),
            int(workload.output_tokens[i]),
            0 if workload.priority is None else int(workload.priority[i]),
        )
        for i in (range(len(workload)) if order is None else order)
    ]
