"""Random commands on damaged files: one line of error or an answer, within 60 s and 4 GiB.

``python -m tests.faults.commands --cases 1000`` prints counts.
"""

import argparse
import gzip
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.damage import damaged
from tests.faults.forks import Forks
from tests.faults.readers import IN_MEMORY, SEEDS, Readers

SECONDS = 60
"""A command on a loaded machine; without other programs none takes more than a few seconds."""
MEMORY = 4 << 30
COMMANDS = (
    ("simulate", "-w", "{trace}", "-s", "dfs"),
    ("simulate", "-w", "trace1", "-n", "20", "-m", "{model}"),
    ("simulate", "-w", "trace1", "-n", "20", "--hardware", "{gpu}"),
    ("simulate", "-w", "trace1", "-n", "20", "--cost-model", "fitted:{fitted}"),
    ("simulate", "-w", "batch.jsonl", "--tokenizer", "{tokenizer}", "--steps", "steps.out"),
    ("compare", "{trace}", "-q"),
    ("compare", "{batch}", "--tokenizer", "bytes:4", "--lengths", "{results}", "-q"),
    ("plan", "{batch}", "-o", "ordered.out", "--tokenizer", "bytes:4", "-q"),
    (
        *("plan", "batch.jsonl", "-o", "ordered.out", "--tokenizer", "bytes:4", "-q"),
        *("--lengths", "{results}", "--lengths-batch", "{batch}"),
    ),
    ("simulate", "-w", "trace1", "-n", "3", "--schedule", "{schedule}"),
    ("simulate", "-w", "trace1", "-n", "9", "--set", "version={costs}"),
    ("restore", "{batch}", "{results}", "-o", "restored.out"),
    ("workload", "describe", "{trace}"),
    ("workload", "convert", "{trace}", "converted.csv"),
    ("sweep", "{sweep}", "--dry-run"),
    ("validate", "{validate}", "-o", "validated"),
    ("costs", "-m", "{model}", "--prefill", "1x99", "--decode", "3x50"),
    ("calibrate", "--from-replay", "{replay}", "-o", "fitted.out"),
    ("report", "demo"),
    ("plot", "demo"),
)
FILES = {
    "trace": [name for name in SEEDS if name.endswith(".csv")] + ["mooncake.jsonl", "ids.jsonl"],
    "model": ["model.yaml", *(name for name in SEEDS if name.endswith("3-27b.json"))],
    "gpu": ["gpu.yaml"],
    "fitted": ["fitted.yaml"],
    "tokenizer": ["tokenizer.json"],
    "batch": ["batch.jsonl"],
    "results": ["results.jsonl"],
    "sweep": ["sweep.yaml"],
    "validate": ["validate.yaml"],
    "replay": ["replay.json", "replay.steps.jsonl", "replay.requests.jsonl"],
    "schedule": ["schedule.jsonl"],
    "costs": ["gpu.yaml", "fitted.yaml"],
}
UNUSUAL = 0.2
"""Share of the damaged files that are no files; see `_make_unusual`."""
LINKS = {"zeros": "/dev/zero", "null": "/dev/null", "loop": ""}
VALUES = (
    *("", "-1", "0", "1", "3.5", "nan", "inf", "1e9", "9" * 30, "x", "x" * 3000, "\u2028", "a\nb"),
    *("trace1", "fixed:3x4", "dfs", "vllm", "1P1D", "bytes:4", ".", "/dev/null", "../x", "*"),
)
OPTIONS = (
    *("-n", "-s", "-m", "--hardware", "--engine", "--seed", "--tp", "--dp", "--output-lengths"),
    *("--cost-model", "--overlap", "--disaggregation", "--dtype", "--quantization", "--set"),
    *("--json", "-q", "--format", "--max-prompt-tokens", "--price-per-gpu-hour", "--no-such"),
)


def run(cases: int, seed: int, seconds: float = 1e9) -> tuple[Counter[str], list[str]]:
    """Run ``cases`` commands; return counts of their ends, and those that went wrong."""
    rng, counts, wrong = random.Random(seed), Counter[str](), list[str]()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder, Forks() as forks:
        readers = Readers(Path(folder))
        (Path(folder) / "tiny-llama").mkdir()
        others = list(readers.sound.values())
        for _ in range(cases):
            if time.monotonic() - began > seconds:
                break
            arguments, changed = _command(rng, readers)
            for name in changed:
                if rng.random() < UNUSUAL:
                    _make_unusual(Path(folder) / name, rng)
                else:
                    readers.put(name, damaged(name, readers.sound[name], others, rng))
            start = time.monotonic()
            limits = {"alarm": SECONDS}
            if arguments[0] != "report":  # V8 reserves far more addresses than it uses memory
                limits["memory"] = MEMORY
            status, err = forks.run(arguments, Path(folder), **limits)
            took = time.monotonic() - start
            for name in changed:
                _remove(Path(folder) / name)
                readers.restore(name)
            counts[f"exit status {status}"] += 1
            lines = err.count("\n")
            if (
                status not in (0, 1, 2)
                or "Traceback" in err
                or (status == 2 and ("rror" not in err or lines > 8 or len(err) > 5000))
            ):
                counts["wrong"] += 1
                wrong.append(f"{arguments} {changed}: {status}, {took:.0f} s: {err[-500:]}")
    return counts, wrong


def _make_unusual(path: Path, rng: random.Random) -> None:
    """Put something else than a file in its place: nothing, a folder, a pipe, a device."""
    path.unlink()
    kind = rng.choice(("nothing", "folder", "pipe", "zeros", "null", "loop", "empty", "gzip"))
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "gzip":
        path.write_bytes(gzip.compress(b"1" * 10**6))
    elif kind in LINKS:
        path.symlink_to(LINKS[kind] or path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _command(rng: random.Random, readers: Readers) -> tuple[list[str], list[str]]:
    """Return a random command, and the names of the files to damage for it."""
    chosen, changed = [], []
    for word in rng.choice(COMMANDS):
        key = word.partition("{")[2].partition("}")[0]
        if key:
            name = rng.choice(FILES[key])
            named = "replay.json" if key == "replay" else name
            word = word.replace(f"{{{key}}}", named)
            changed.append(name)
        chosen.append(word)
    if chosen[-1] == "demo":
        changed = [rng.choice([name for name in readers.sound if name.startswith("demo/")])]
    changed = [name for name in changed if rng.random() < 0.7]
    for _ in range(rng.choice((0, 0, 1, 2))):
        option = rng.choice(OPTIONS)
        value = [] if option in ("--json", "-q") else [rng.choice(VALUES)]
        chosen += [option, *value]
    return [word.replace("\0", "") for word in chosen], changed


def main() -> None:
    """Run the campaign, print its counts, and fail if a command went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many")
    options = parser.parse_args()
    counts, wrong = run(options.cases, options.seed, options.seconds)
    print(f"{counts.total() - counts['wrong']:,} commands: {dict(counts)}")
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
