"""`bssim run` beside ``vllm run-batch``, on the pools of a validation: CPU and wall seconds.

    python -m bssim.experiments.validation.run_batch configs/validate/cpu.yaml OUT

A pool becomes a batch file. Word ``w17`` is token 17 for the tokenizer written beside it, and the
chat template is only the content, so the engine gets the token ids of the pool. Both commands are
measured from the moment their engine is ready to their last result: reading, rendering, serving and
writing, in all their processes.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bssim.experiments.validation.config import ValidationConfig, load_validation
from bssim.sim.workload import Workload, prompt_token_ids

NAME = "tiny"
RUN_BATCH = """
import asyncio, sys, time
import psutil
from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
from vllm.entrypoints.launchers.run_batch import make_arg_parser, run_batch
from vllm.utils.argparse_utils import FlexibleArgumentParser

def cpu_s():
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(t.user + t.system for t in times)

async def main(args):
    async with build_async_engine_client(args) as client:
        cpu, wall = cpu_s(), time.perf_counter()
        await run_batch(client, args)
        print("seconds", cpu_s() - cpu, time.perf_counter() - wall)

if __name__ == "__main__":
    asyncio.run(main(make_arg_parser(FlexibleArgumentParser()).parse_args()))
"""
"""What ``vllm run-batch`` does, with both clocks read once the engine is ready and at the end."""
BSSIM_RUN = """
import json, sys, bssim
batch, out, model, scheduler, clock, *flags = sys.argv[1:]
report = bssim.run(batch, out, model=model, scheduler=scheduler, engine_args=flags, clock=clock)
print("seconds", report.render_s + report.wall_s)
"""
"""`bssim run` with one of its clocks, because it also plans by that clock."""


def write_model(config: ValidationConfig, folder: Path) -> None:
    """Write the model's config with a tokenizer that has one word per token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(config.model / "config.json", folder / "config.json")
    size = int(json.loads((config.model / "config.json").read_text())["vocab_size"])
    words = {f"w{token}": token for token in range(size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_batch(pool: Workload, vocab_size: int, path: Path) -> None:
    """Write a pool as chat lines that generate exactly the output tokens of the pool."""
    with open(path, "w", encoding="utf-8") as file:
        for i in range(len(pool)):
            ids = prompt_token_ids(pool, i, vocab_size=vocab_size).tolist()
            tokens = int(pool.output_tokens[i])
            body = {
                "model": NAME,
                "messages": [{"role": "user", "content": " ".join(f"w{t}" for t in ids)}],
                "max_tokens": tokens,
                "min_tokens": tokens,
                "ignore_eos": True,
            }
            line = {"custom_id": pool.request_id(i), "method": "POST"}
            file.write(json.dumps({**line, "url": "/v1/chat/completions", "body": body}) + "\n")


def engine_flags(config: ValidationConfig, max_model_len: int) -> list[str]:
    """Return the flags that give ``run-batch`` the engine of the validation."""
    knobs = config.engine
    assert knobs.num_gpu_blocks is not None
    flags = {
        "--served-model-name": NAME,
        "--load-format": "dummy" if config.dummy_weights else "auto",
        "--dtype": config.dtype,
        "--max-model-len": max_model_len,
        "--block-size": knobs.block_size,
        "--num-gpu-blocks-override": knobs.num_gpu_blocks,
        "--kv-cache-memory-bytes": 1 << 26,
        "--max-num-batched-tokens": knobs.max_num_batched_tokens,
        "--max-num-seqs": knobs.max_num_seqs,
    }
    return [*(str(part) for pair in flags.items() for part in pair), "--enforce-eager"]


def measure(config: ValidationConfig, out: Path) -> list[dict[str, Any]]:
    """Return one row per pool and command: the least seconds of ``config.repeats`` runs."""
    out.mkdir(parents=True, exist_ok=True)
    model = out / "model"
    write_model(config, model)
    vocab = int(json.loads((model / "config.json").read_text())["vocab_size"])
    pools = [source.pool(config.seed) for source in config.pools]
    longest = max(int((p.prompt_tokens + p.output_tokens).max()) for p in pools)
    # Twice the length, because vLLM first estimates tokens from characters: a word has five.
    flags = engine_flags(config, 2 * longest)
    rows = []
    for pool in pools:
        batch = out / f"{pool.name}.jsonl"
        write_batch(pool, vocab, batch)
        seconds: dict[str, list[list[float]]] = {"run-batch": [], "bssim run": []}
        for turn in range(config.repeats):
            theirs = ["-i", str(batch), "-o", str(out / f"{pool.name}-run-batch-{turn}.jsonl")]
            seconds["run-batch"].append(
                _seconds(RUN_BATCH, [*theirs, "--model", str(model), *flags])
            )
            ours = []
            for clock in ("process", "wall"):
                answers = str(out / f"{pool.name}-bssim-{clock}-{turn}.jsonl")
                ours += _seconds(
                    BSSIM_RUN, [str(batch), answers, str(model), "auto", clock, *flags]
                )
            seconds["bssim run"].append(ours)
        base = np.min(seconds["run-batch"], axis=0)
        for command, found in seconds.items():
            cpu, wall = np.min(found, axis=0).tolist()
            row = {"pool": pool.name, "command": command, "cpu_s": cpu, "wall_s": wall}
            rows.append({**row, "speedup": base[0] / cpu, "wall_speedup": base[1] / wall})
    return rows


def _seconds(program: str, arguments: list[str]) -> list[float]:
    """Run a program; return the numbers that it prints after ``seconds``."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [float(number) for number in done.stdout.rsplit("seconds", 1)[1].split()]


def main(path: str, out: str) -> None:
    """Measure and print one JSON line per pool and command."""
    config = load_validation(Path(path))
    rows = measure(config, Path(out))
    (Path(out) / "run_batch.json").write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main(*sys.argv[1:])
