"""Damaged input files and results: the readers may refuse a file, but never crash.

`python -m tests.faults.readers --cases 1000000` prints counts. The same seed damages the same way.
"""

import argparse
import json
import random
import resource
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import bssim
from bssim.backends import read_replay
from bssim.cost_models.fitted import FittedCostModel
from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.errors import InputError
from bssim.experiments.batch.lengths import read_output_lengths
from bssim.experiments.batch.restore import restore
from bssim.experiments.batch.run_lines import check_batch, read_lines
from bssim.experiments.batch.run_results import Results as RunResults
from bssim.experiments.report.page import report_html
from bssim.experiments.sweeps import Cell, Results, expand, read_sweep_file, run_sweep
from bssim.experiments.validation.config import load_validation
from bssim.sim.schedule import read_schedule, scheduled_pool, write_schedule
from bssim.sim.workload import load_workload
from bssim.sim.workload.readers import ReaderOptions, read_workload
from bssim.sim.workload.readers.tokenizer import open_tokenizer
from tests.faults.damage import damaged

ROOT = Path(__file__).parents[2]
SECONDS = 10
"""Of processor time; a read that waits may take ten times as long on a loaded machine."""
MEMORY = 4 << 30
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the files lie: on a disk, writing them takes longer than reading them."""
BATCH = (
    b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m",'
    b'"messages":[{"role":"user","content":"question"}],"max_tokens":9}}\n'
    b'{"custom_id":"b","url":"/v1/completions","body":{"prompt":[1,2],"max_tokens":30}}\n'
)
RESULTS = (
    b'{"id":"1","custom_id":"b","response":{"status_code":200,"request_id":"x","body":{"choices":'
    b'[{"index":0,"text":"so","finish_reason":"stop"}],"usage":{"prompt_tokens":20,'
    b'"completion_tokens":5}}},"error":null}\n'
)
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
LINEAR = ["Linear"]
SCHEMES: dict[str, dict[str, object]] = {
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "lm_head": False},
    "fp8": {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
        "ignored_layers": ["lm_head", "re:.*norm"],
        "kv_cache_scheme": {"num_bits": 8, "type": "float"},
    },
    "bitsandbytes": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_use_double_quant": True,
        "llm_int8_skip_modules": ["lm_head"],
    },
    "modelopt": {
        "quant_method": "modelopt",
        "quantization": {"quant_algo": "FP8"},
        "kv_cache_quant_algo": "FP8",
        "exclude_modules": ["lm_head"],
    },
    "w4a16": {
        "quant_method": "compressed-tensors",
        "ignore": ["lm_head"],
        "config_groups": {
            "0": {
                "targets": LINEAR,
                "weights": {"num_bits": 4, "type": "int", "group_size": 128, "symmetric": True},
                "input_activations": None,
            }
        },
    },
    "w8a8": {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "0": {
                "targets": LINEAR,
                "weights": {"num_bits": 8, "type": "float", "block_structure": [128, 128]},
                "input_activations": {"num_bits": 8, "type": "float"},
            }
        },
    },
    "w4a4": {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "0": {
                "targets": LINEAR,
                "weights": {"num_bits": 4, "type": "float", "group_size": 16},
                "input_activations": {"num_bits": 4, "type": "float"},
            }
        },
    },
}
"""A ``quantization_config`` of each kind."""


def _models() -> dict[str, bytes]:
    """Return the configs of real models, and one with each of `SCHEMES`."""
    found = {path.name: path.read_bytes() for path in sorted(CONFIGS.glob("*.json"))}
    llama = json.loads(found["smollm2-1.7b.json"])
    schemes = {
        f"llama-{name}.json": json.dumps(llama | {"quantization_config": scheme}).encode()
        for name, scheme in SCHEMES.items()
    }
    return found | schemes


CONFIGS = ROOT / "tests/data/configs"
MODELS = _models()
SEEDS = {
    "azure.csv": b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,10,1\n,20,2\n",
    "burstgpt.csv": b"Timestamp,Request tokens,Response tokens\n5,472,18\n45,1087,3\n",
    "bssim.csv": b"source,prompt_tokens,output_tokens,max_cached_tokens\na,9,1,0\na,7,3,6\n",
    "mmlu.csv": b"subject,prefix_tokens,question_tokens\na,30,5\nb,20,4\na,30,7\n",
    "mooncake.jsonl": b'{"timestamp":1,"input_length":600,"output_length":5,"hash_ids":[0,1]}\n'
    * 2,
    "ids.jsonl": b'{"id":"a","prompt_token_ids":[1,2],"output_tokens":4,"priority":2}\n',
    "batch.jsonl": BATCH,
    "run.jsonl": BATCH,
    "results.jsonl": RESULTS,
    "out.jsonl": RESULTS,
    "out.jsonl.run.json": b'{"batch": "batch.jsonl", "batch_sha256": "%s", "model": "m"}',
    "sweep.yaml": b"workloads: trace1\nschedulers: [fcfs, dfs]\nnum_requests: 30\n"
    b"engine: {preset: vllm, max_num_seqs: 4}\n",
    "model.yaml": b"num_layers: 2\nhidden_size: 64\nintermediate_size: 128\nvocab_size: 100\n"
    b"num_attention_heads: 4\nnum_kv_heads: 2\nhead_dim: 16\n",
    "config.json": b'{"model_type":"llama","hidden_size":64,"intermediate_size":128,"vocab_size":9,'
    b'"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2}\n',
    "gpu.yaml": b"base: h200\nname: mine\nmemory_bytes: 96e9\nbandwidth: 4.0e+12\n",
    "fitted.yaml": b"cost_model: fitted\nseconds_per: {fixed: 0.003, tokens: 3.0e-5}\n"
    b"max_tokens: 64\nsource: here\n",
    "validate.yaml": (ROOT / "configs/validate/cpu.yaml").read_bytes(),
    "tokenizer.json": (ROOT / "tests/data/tokenizer.json").read_bytes(),
    "tokenizer_config.json": b'{"bos_token": "<s>", "eos_token": {"content": "x"}, "chat_template":'
    b' "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"}',
    **MODELS,
    **{name: text.encode() for name, text in REPLAY.items()},
}
SWEEP = """
workload: trace1
schedulers: [fcfs, dfs]
num_requests: 30
engine: {preset: vllm, max_num_seqs: [4, 8], num_gpu_blocks: 4000}
timeline: true
"""


class _Silent:
    def start(self, due: int, reused: int) -> None:
        pass

    def finished(self, cell: Cell, row: dict[str, object]) -> None:
        pass


class Readers:
    """Sound files in a folder, and what reads each of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sound = dict(SEEDS)
        self._add_schedule()
        self._add_results()
        self._write_all()
        sha256 = check_batch(folder / "run.jsonl").sha256.encode()
        self.sound["out.jsonl.run.json"] = SEEDS["out.jsonl.run.json"] % sha256
        self._write_all()
        for name in self.sound:
            self.read(name)

    def _write_all(self) -> None:
        for name, data in self.sound.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(data)

    def _add_schedule(self) -> None:
        self._pool = load_workload("trace1", num_requests=3)
        made = bssim.simulate(self._pool, scheduler="dfs")
        write_schedule(self.folder / "schedule.jsonl", made.schedule, made.workload)
        self.sound["schedule.jsonl"] = (self.folder / "schedule.jsonl").read_bytes()

    def _add_results(self) -> None:
        file = self.folder / "demo.yaml"
        file.write_text(SWEEP)
        self._cells = expand(read_sweep_file(file))
        self._results = Results(self.folder / "demo")
        run_sweep(self._cells, self._results, jobs=2, progress=_Silent())
        kept = [self._results.folder / "runs.csv"]
        for cell in self._cells[:3]:
            key = cell.config_hash
            kept += [self._results.cell_path(key), self._results.timeline_path(key)]
        for path in kept:
            self.sound[str(path.relative_to(self.folder))] = path.read_bytes()

    def put(self, name: str, data: bytes) -> None:
        """Replace a file by damaged ``data``."""
        (self.folder / name).write_bytes(data)

    def restore(self, name: str) -> None:
        """Make a file, and what a reader writes of it, sound again."""
        self.put(name, self.sound[name])
        if name in ("run.jsonl", "out.jsonl"):
            self.put("out.jsonl.run.json", self.sound["out.jsonl.run.json"])
            self.put("out.jsonl", self.sound["out.jsonl"])

    def read(self, name: str) -> object:
        """Read a file of this name."""
        path = self.folder / name
        if name.startswith("demo/"):
            if name != "demo/runs.csv":
                self._results.write_runs(self._cells)
            return report_html(self._results)
        if name in REPLAY:
            result = read_replay(self.folder / "replay.json")
            return result.totals(), result.work() if result.complete else None
        if name in ("run.jsonl", "out.jsonl", "out.jsonl.run.json"):
            return self._run()
        if name == "schedule.jsonl":
            return read_schedule(path, scheduled_pool(path, self._pool))
        if name == "results.jsonl":
            restore(self.folder / "batch.jsonl", [path], self.folder / "restored.jsonl")
            return read_output_lengths(path)
        if name.startswith("tokenizer"):
            tokenizer = open_tokenizer(str(self.folder))
            text = tokenizer.chat_text([{"role": "user", "content": "hello"}], [{"type": "x"}])
            return tokenizer.encode([text, "hello"], chat=True)
        return reader_of(name)(path)

    def _run(self) -> object:
        batch = check_batch(self.folder / "run.jsonl")
        list(read_lines(batch))
        with RunResults(self.folder / "out.jsonl", batch, {}) as results:
            return list(results.observed())


def reader_of(name: str) -> Callable[[Path], object]:
    """Return what reads a file of this name that needs no other file."""
    if name == "sweep.yaml":
        return lambda path: expand(read_sweep_file(path))
    if name in ("model.yaml", "config.json") or name in MODELS:
        return load_llm
    if name == "gpu.yaml":
        return load_hardware
    if name == "fitted.yaml":
        return FittedCostModel.read
    if name == "validate.yaml":
        return load_validation
    options = ReaderOptions(tokenizer="bytes:4") if name == "batch.jsonl" else ReaderOptions()
    return lambda path: read_workload(path, options)


ALONE = [
    name
    for name in SEEDS
    if name not in REPLAY and not name.startswith(("run.", "results.", "out.", "tokenizer"))
]
"""Files that need no other file; see `reader_of`."""


def _too_long(signal_number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _set_alarms(seconds: float) -> None:
    for timer, number, allowed in (
        (signal.ITIMER_PROF, signal.SIGPROF, seconds),
        (signal.ITIMER_REAL, signal.SIGALRM, 10 * seconds),
    ):
        signal.signal(number, _too_long)
        signal.setitimer(timer, allowed)


@dataclass
class Tally:
    """Counts of the ends of reads, and the first example of every wrong end."""

    readers: Readers
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def read(self, name: str, data: bytes) -> None:
        """Read damaged ``data`` in place of a file, count the end and make the file sound again."""
        self.readers.put(name, data)
        _set_alarms(SECONDS)
        try:
            self.readers.read(name)
            self.counts["read"] += 1
        except InputError as error:
            self.counts["refused"] += 1
            if "\n" in str(error) or len(str(error)) > 2500:
                self._wrong(f"{name}: long message", repr(data[:300]))
        except BaseException as error:  # a panic of Rust is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            self._wrong(f"{name}: {_place(error)}", f"{str(error)[:120]} {data[:300]!r}")
        finally:
            _set_alarms(0)
            self.readers.restore(name)

    def _wrong(self, what: str, example: str) -> None:
        self.counts["wrong"] += 1
        self.examples.setdefault(what, example)

    @property
    def wrong(self) -> list[str]:
        """The examples, a line for each."""
        return [f"{what}: {example}" for what, example in self.examples.items()]


def run(
    cases: int, seed: int, only: str = "", limited: bool = False
) -> tuple[Counter[str], list[str]]:
    """Read ``cases`` damaged files; return counts and, of every wrong end, the first example.

    ``only``: the start of the names of the files to damage. ``limited``: see `limit_memory`.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        readers = Readers(Path(folder))
        tally = Tally(readers)
        names = [name for name in readers.sound if name.startswith(only)]
        weights = [1.0 if only else _weight(name) for name in names]
        others = list(readers.sound.values())
        if limited:
            limit_memory()
        for name in rng.choices(names, weights, k=cases):
            tally.read(name, damaged(name, readers.sound[name], others, rng))
    return tally.counts, tally.wrong


def _weight(name: str) -> float:
    """Return how often to damage a file: a read of a results folder takes as long as 200 others,
    and models have many files."""
    if name.startswith("demo/"):
        return 0.005
    return 0.15 if name in MODELS else 1.0


def limit_memory() -> None:
    """Allow `MEMORY` more than the sound files took: V8, in a report, reserves far more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _place(error: BaseException) -> str:
    """Return the type of an error and where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    return f"{type(error).__name__} {trace.tb_frame.f_code.co_filename[-40:]}:{trace.tb_lineno}"


def main() -> None:
    """Run the campaign, print its counts, and fail if a case went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="the start of the names of the files to damage")
    options = parser.parse_args()
    counts, wrong = run(options.cases, options.seed, only=options.only, limited=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.cases:,} damaged files: {dict(counts)}; {peak:.0f} MB")
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
