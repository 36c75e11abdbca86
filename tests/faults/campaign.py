"""Damage input files at random and read them: the readers may refuse a file, but never crash.

`python -m tests.faults.campaign --cases 1000000` prints counts. The same seed damages the same way.
"""

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from bssim.backends import read_replay
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.errors import InputError
from bssim.experiments.sweeps import expand, read_sweep_file
from bssim.sim.workload.readers import ReaderOptions, read_workload

SECONDS = 10
MEMORY = 4 << 30
NUMBERS = "NaN Infinity -Infinity -1 0 1e999 1e308 9223372036854775808 0.5 true null {} [] '' .inf"
PIECES = [
    *(number.encode() for number in NUMBERS.split()),
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\n", b'"', b",", b"[" * 50, b"{" * 50),
    *(b"1" * 5000, b"x" * 3000, b"\xe2\x80\xa8", b"&a", b"*a", b": ", b"- ", b"\t", b"\\ud800"),
]
SEEDS = {
    "azure.csv": b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,10,1\n,20,2\n",
    "burstgpt.csv": b"Timestamp,Request tokens,Response tokens\n5,472,18\n45,1087,3\n",
    "bssim.csv": b"source,prompt_tokens,output_tokens,max_cached_tokens\na,9,1,0\na,7,3,6\n",
    "mmlu.csv": b"subject,prefix_tokens,question_tokens\na,30,5\nb,20,4\na,30,7\n",
    "mooncake.jsonl": b'{"timestamp":1,"input_length":600,"output_length":5,"hash_ids":[0,1]}\n'
    * 2,
    "ids.jsonl": b'{"id":"a","prompt_token_ids":[1,2],"output_tokens":4,"priority":2}\n',
    "batch.jsonl": b'{"custom_id":"a","body":{"model":"m","messages":[{"role":"user",'
    b'"content":"question"}],"max_tokens":9}}\n',
    "sweep.yaml": b"workloads: trace1\nschedulers: [fcfs, dfs]\nnum_requests: 30\n"
    b"engine: {preset: vllm, max_num_seqs: 4}\n",
    "model.yaml": b"num_layers: 2\nhidden_size: 64\nintermediate_size: 128\nvocab_size: 100\n"
    b"num_heads: 4\nnum_kv_heads: 2\nhead_dim: 16\n",
    "config.json": b'{"model_type":"llama","hidden_size":64,"intermediate_size":128,"vocab_size":9,'
    b'"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2}\n',
    "gpu.yaml": b"base: h200\nname: mine\nmemory_bytes: 96e9\nbandwidth: 4.0e+12\n",
}


STEPS = (
    '{"segment": 0, "replica": 0, "step": 0, "scheduled": {"r0": 20}, "cached": {"r0": 0}, '
    '"preempted": [], "free_blocks": 9, "finished": [], "seconds": 0.5}\n'
    '{"segment": 0, "replica": 0, "step": 1, "scheduled": {"r0": 1}, "cached": {}, '
    '"preempted": [], "free_blocks": 9, "finished": ["r0"], "seconds": 0.25}\n'
)
REPLAY = {
    "replay.json": '{"workload": "w", "workload_digest": "d", "scheduler": "dfs", '
    '"num_requests": 1, "engine": {"max_num_seqs": 64, "block_size": 16}, "error": ""}',
    "replay.steps.jsonl": STEPS,
    "replay.requests.jsonl": '{"request_id": "r0", "prompt_tokens": 20, "output_tokens": 2, '
    '"cached_tokens": 0, "finish_s": 0.75, "replica": 0, "segment": 0}\n',
}
SEEDS |= {name: text.encode() for name, text in REPLAY.items()}


def _read_replay(path: Path) -> object:
    """Read a replay of which one file is damaged."""
    for name, text in REPLAY.items():
        if name != path.name:
            (path.parent / name).write_text(text)
    result = read_replay(path.parent / "replay.json")
    return result.totals(), result.work() if result.complete else None


def reader_of(name: str) -> Callable[[Path], object]:
    """Return what reads a file of this name."""
    if name == "sweep.yaml":
        return lambda path: expand(read_sweep_file(path))
    if name in REPLAY:
        return _read_replay
    if name in ("model.yaml", "config.json"):
        return load_llm
    if name == "gpu.yaml":
        return load_hardware
    options = ReaderOptions(tokenizer="bytes:4") if name == "batch.jsonl" else ReaderOptions()
    return lambda path: read_workload(path, options)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return ``data`` with one to three kinds of damage."""
    for _ in range(rng.randint(1, 3)):
        at, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        data = rng.choice(
            (
                data[:at],  # truncated
                data[:at] + data[end:],  # a part lost
                data + data[at:],  # a part twice
                data[:at] + rng.choice(PIECES) + data[at:],
                data[:at] + rng.choice(PIECES) + data[end:],
                data[:at] + rng.choice(list(SEEDS.values()))[:40] + data[at:],  # interleaved
                data.replace(b"\n", b"\r\n"),
                data.decode("latin-1").encode(rng.choice(("utf-16", "utf-8-sig", "latin-1"))),
            )
        )
    for digits in (b"20", b"600", b"64", b"30"):  # a number in a field
        if rng.random() < 0.1:
            data = data.replace(digits, rng.choice(PIECES), 1)
    return data


def _too_long(signal_number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def run(cases: int, seed: int, seconds: float = 1e9) -> tuple[Counter[str], list[str]]:
    """Read ``cases`` damaged files; return counts and, of every wrong end, the first example."""
    rng, counts, wrong = random.Random(seed), Counter[str](), dict[str, str]()
    signal.signal(signal.SIGALRM, _too_long)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(cases):
            if time.monotonic() - began > seconds:
                break
            name = rng.choice(list(SEEDS))
            path = Path(folder, name)
            path.write_bytes(data := damaged(SEEDS[name], rng))
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                reader_of(name)(path)
                counts["read"] += 1
            except InputError as error:
                counts["refused"] += 1
                if "\n" in str(error) or len(str(error)) > 2500:
                    counts["wrong"] += 1
                    wrong.setdefault(f"{name}: long message", repr(data[:300]))
            except Exception as error:
                counts["wrong"] += 1
                trace = error.__traceback__
                while trace is not None and trace.tb_next is not None:
                    trace = trace.tb_next
                place = "" if trace is None else f"{trace.tb_frame.f_code.co_filename[-40:]}"
                line = 0 if trace is None else trace.tb_lineno
                key = f"{name}: {type(error).__name__} {place}:{line}"
                wrong.setdefault(key, f"{str(error)[:120]} {data[:300]!r}")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    return counts, [f"{key}: {example}" for key, example in wrong.items()]


def main() -> None:
    """Run the campaign, print its counts, and fail if a case went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    counts, wrong = run(options.cases, options.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{counts.total():,} ends of {options.cases:,} cases: {dict(counts)}; {peak:.0f} MB")
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
