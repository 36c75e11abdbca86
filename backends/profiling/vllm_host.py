"""Measure the CPU time of vLLM's own code in a step, by stage and number of running requests.

This needs no GPU, because the Python code of these stages is the same for every device, and a model
with one tiny layer does little else. It measures the CPU time of the calling thread, so that other
programs do not count. The forward pass, sampling and, on a GPU, kernel launches and copies are left
out.

Run it in an environment with vLLM: ``python -m bssim.backends.profiling.vllm_host OUT.csv``.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bssim.backends.profiling.machine import cpu_name

REQUESTS = (1, 8, 32, 64, 128, 256, 512, 1024)
"""Numbers of requests that decode in each step."""
PROMPT_TOKENS = 16
STEPS = 48
"""Decode steps per run; the first and last quarters are left out."""
REPEATS = 3
"""Runs per number of requests; the fastest run counts, stage by stage."""
STAGES = {
    "schedule": ("scheduler", "schedule"),
    "update_states": ("runner", "_update_states"),
    "prepare_inputs": ("runner", "_prepare_inputs"),
    "attention_metadata": ("runner", "_build_attention_metadata"),
    "bookkeeping": ("runner", "_bookkeeping_sync"),
    "update_from_output": ("scheduler", "update_from_output"),
    "process_outputs": ("outputs", "process_outputs"),
}
"""Column -> (part of the engine, its method). ``process_outputs`` creates the outputs for the user,
with their text if requested. It runs in the front-end process if vLLM uses several processes."""
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "torch_dtype": "float32",
}


@dataclass
class StageClock:
    """Thread CPU seconds of each stage, one value per call."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` with a timer that records each call."""
        calls = self.seconds[name]

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                calls.append(time.thread_time() - began)

        return call


def measure(requests: Sequence[int] = REQUESTS, *, text: bool = False) -> list[dict[str, float]]:
    """Return one row per number of requests: the median CPU seconds of each stage of a decode step.

    With ``text``, the stage ``process_outputs`` also turns the tokens into text.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the parts of the engine must be accessible
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        if text:
            _write_tokenizer(Path(folder))
        engine = _start(folder, max(requests), text=text)
        rows = []
        for n in requests:
            runs = [_measure_one(engine, f"{n}-{k}", n, text=text) for k in range(REPEATS)]
            best = {name: min(run[name] for run in runs) for name in STAGES}
            rows.append({"text": int(text), "requests": n, **best, "total": sum(best.values())})
        return rows


def _write_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer with the vocabulary size of the model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(alphabet[65 + k % 26], alphabet[65 + k // 26]) for k in range(512 - len(alphabet))]
    tokens = [*alphabet, *(a + b for a, b in pairs)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))


def _start(folder: str, most: int, *, text: bool) -> Any:
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    blocks = most + 64
    return LLMEngine.from_engine_args(
        EngineArgs(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=not text,
            enforce_eager=True,
            async_scheduling=False,
            enable_prefix_caching=True,
            max_model_len=PROMPT_TOKENS + STEPS,
            max_num_seqs=most,
            max_num_batched_tokens=max(8192, most * PROMPT_TOKENS),
            num_gpu_blocks_override=blocks,
            kv_cache_memory_bytes=2**27,
            disable_log_stats=True,
        )
    )


def _measure_one(engine: Any, name: str, requests: int, *, text: bool) -> dict[str, float]:
    """Run ``requests`` requests to completion and return the medians of the middle steps."""
    from vllm import SamplingParams, TokensPrompt

    params = SamplingParams(
        temperature=0.0, ignore_eos=True, max_tokens=STEPS, min_tokens=STEPS, detokenize=text
    )
    for i in range(requests):
        prompt = [3 + (i * 31 + k * 7) % 500 for k in range(PROMPT_TOKENS)]
        engine.add_request(f"{name}-{i}", TokensPrompt(prompt_token_ids=prompt), params)
    clock = StageClock()
    core = engine.engine_core.engine_core
    parts = {
        "scheduler": core.scheduler,
        "runner": core.model_executor.driver_worker.worker.model_runner,
        "outputs": engine.output_processor,
    }
    original = {stage: getattr(parts[part], method) for stage, (part, method) in STAGES.items()}
    for stage, (part, method) in STAGES.items():
        setattr(parts[part], method, clock.timed(stage, original[stage]))
    try:
        while engine.has_unfinished_requests():
            engine.step()
    finally:
        for stage, (part, method) in STAGES.items():
            setattr(parts[part], method, original[stage])
    middle = slice(STEPS // 4, STEPS - STEPS // 4)
    return {stage: statistics.median(calls[middle]) for stage, calls in clock.seconds.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the table and a YAML file with facts about the machine."""
    parser = argparse.ArgumentParser(prog="python -m bssim.backends.profiling.vllm_host")
    parser.add_argument("out", type=Path, help="CSV to write; machine facts go to a .yaml")
    parser.add_argument("--text", action="store_true", help="also turn output tokens into text")
    options = parser.parse_args(arguments)
    import vllm

    rows = measure(text=options.text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.4g}" for k, v in row.items()} for row in rows)
    facts = {
        "vllm": vllm.__version__,
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
    }
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in facts.items())
    options.out.with_suffix(".yaml").write_text(text, encoding="utf-8")
    print(f"wrote {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
