"""The golden traces: steps that vLLM's own scheduler took, checked without vLLM.

``python -m tests.conformance.golden`` (from the project root, with vLLM installed and ``src`` on
PYTHONPATH) records them again; add ``--check`` to compare instead of writing.
"""

import argparse
import gzip
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bssim.sim.workload import PrefixTree, Workload
from tests.conformance.pools import grown

FILE = Path(__file__).parents[1] / "data" / "golden" / "vllm_steps.json.gz"
COMMAND = "PYTHONPATH=src python -m tests.conformance.golden"
TIGHT = {
    "block_size": 16,
    "num_gpu_blocks": 24,
    "max_num_batched_tokens": 128,
    "max_num_seqs": 8,
}


@dataclass(frozen=True)
class Case:
    """One load, one engine, and (once recorded) vLLM's steps."""

    name: str
    workload: Workload
    engine: dict[str, Any]
    order: list[int] | None
    """The order in which the requests were submitted; None: that of the pool."""
    rows: list[dict[str, Any]]


def _mixed(seed: int, requests: int, output: int, depth: int) -> Workload:
    """Return random requests on a random tree whose lengths like multiples of the block size."""
    rng = random.Random(seed)
    lengths = [0, 0, 1, 7, 15, 16, 17, 31, 32, 33, 48]
    branches = [(rng.randint(max(0, k - 1), k), rng.choice(lengths[2:-1])) for k in range(depth)]
    return grown(
        branches,
        [
            (
                rng.randint(0, depth),
                rng.choice(lengths),
                rng.randint(1, output),
                rng.randint(0, 3),
            )
            for _ in range(requests)
        ],
    )


def loads() -> Iterator[tuple[str, Workload, dict[str, Any]]]:
    """Yield every case that is recorded: its name, load and engine fields."""
    flat = grown([], [(0, 40 + 5 * i, 12 + i, 0) for i in range(12)])
    yield "plain", flat, TIGHT
    yield "exact multiples", grown([(0, 32)], [(1, 16 * k, 16, 0) for k in range(1, 7)]), TIGHT
    same = grown([(0, 64)], [(1, 0, 9 + 3 * i, 0) for i in range(8)])
    yield "duplicates", same, TIGHT
    nested = grown(
        [(0, 24), (1, 24), (2, 24), (3, 24), (0, 48)],
        [(1 + i % 5, 1 + 3 * i, 10 + i % 7, 0) for i in range(20)],
    )
    yield "nested prefixes", nested, TIGHT
    short = grown([(0, 15), (1, 1)], [(1 + i % 2, i % 3, 1 + i % 5, 0) for i in range(24)])
    yield "shorter than a block", short, TIGHT
    alone = grown([], [(0, 200, 30, 0)])
    chunked = {**TIGHT, "long_prefill_token_threshold": 24}
    yield "threshold, one request alone", alone, chunked
    yield "threshold", grown([(0, 70)], [(1, 60, 8, 0)] * 6), chunked
    whole = {**TIGHT, "max_num_batched_tokens": 256, "enable_chunked_prefill": False}
    yield "chunked prefill off", flat, whole
    yield (
        "chunked prefill off, threshold",
        flat,
        {**whole, "long_prefill_token_threshold": 20},
    )
    yield "watermark", nested, {**TIGHT, "watermark": 0.2}
    yield "one sequence", nested, {**TIGHT, "max_num_seqs": 1}
    growth = grown([], [(0, 10 + i, 90, 0) for i in range(12)])
    yield "preemption storm", growth, TIGHT
    yield "preemption storm, async", growth, {**TIGHT, "async_scheduling": True}
    clones = grown([(0, 33)], [(1, 0, 80, 0)] * 10)
    yield "duplicates preempted", clones, TIGHT
    yield "duplicates preempted, async", clones, {**TIGHT, "async_scheduling": True}
    one = grown([(0, 20)], [(1, i, 1, 0) for i in range(10)])
    yield "one output token", one, TIGHT
    yield "one output token, async", one, {**TIGHT, "async_scheduling": True}
    variants: dict[str, dict[str, Any]] = {
        "sync": {},
        "async": {"async_scheduling": True},
        "no caching": {"enable_prefix_caching": False},
        "no caching, async": {"enable_prefix_caching": False, "async_scheduling": True},
        "priority": {"policy": "priority"},
        "priority, async": {"policy": "priority", "async_scheduling": True},
        "threshold": {"long_prefill_token_threshold": 16},
        "chunked prefill off": {"enable_chunked_prefill": False, "max_num_batched_tokens": 320},
        "watermark, async": {"watermark": 0.1, "async_scheduling": True},
        "block size 4": {"block_size": 4, "num_gpu_blocks": 80},
        "block size 32": {"block_size": 32, "num_gpu_blocks": 14},
        "small budget": {"max_num_batched_tokens": 17},
    }
    for seed, (name, fields) in enumerate(variants.items()):
        for size, (requests, output, blocks) in enumerate([(60, 90, 24), (80, 25, 40)]):
            engine = {**TIGHT, "num_gpu_blocks": blocks, **fields}
            load = _mixed(2 * seed + size, requests, output, 4)
            yield f"mixed {size + 1}, {name}", load, engine


def _tree_to_json(workload: Workload) -> dict[str, Any]:
    return {
        "parent": workload.tree.parent.tolist(),
        "segment_tokens": workload.tree.segment_tokens.tolist(),
        "node": workload.node.tolist(),
        "prompt_tokens": workload.prompt_tokens.tolist(),
        "output_tokens": workload.output_tokens.tolist(),
        "priority": None if workload.priority is None else workload.priority.tolist(),
    }


def _tree_from_json(name: str, fields: dict[str, Any]) -> Workload:
    priority = fields["priority"]
    return Workload(
        name=name,
        prompt_tokens=np.array(fields["prompt_tokens"], dtype=np.int64),
        output_tokens=np.array(fields["output_tokens"], dtype=np.int64),
        node=np.array(fields["node"], dtype=np.int32),
        tree=PrefixTree(
            np.array(fields["parent"], dtype=np.int32),
            np.array(fields["segment_tokens"], dtype=np.int64),
        ),
        source=np.zeros(len(fields["node"]), dtype=np.int16),
        source_names=(name,),
        priority=None if priority is None else np.array(priority, dtype=np.int64),
    )


def load() -> tuple[str, list[Case]]:
    """Return the vLLM version that made the traces, and the traces."""
    content = json.loads(gzip.decompress(FILE.read_bytes()))
    cases = [
        Case(
            c["name"],
            _tree_from_json(c["name"], c["workload"]),
            c["engine"],
            c.get("order"),
            c["rows"],
        )
        for c in content["cases"]
    ]
    return content["vllm"], cases


def record() -> dict[str, Any]:
    """Run every case through vLLM's scheduler."""
    import vllm

    from bssim.sim.engine import EngineConfig
    from tests.conformance.oracle import Oracle, oracle_requests

    oracle = Oracle()
    cases = []
    for name, workload, engine in loads():
        orders: dict[str, list[int] | None] = {name: None}
        if engine.get("policy") == "priority":
            orders[f"{name}, shuffled"] = random.Random(name).sample(
                range(len(workload)), len(workload)
            )
        for case, order in orders.items():
            run = oracle.run(oracle_requests(workload, order), EngineConfig(name="vllm", **engine))
            fields: dict[str, Any] = {
                "name": case,
                "engine": engine,
                "workload": _tree_to_json(workload),
            }
            if order is not None:
                fields["order"] = order
            cases.append({**fields, "rows": run.rows})
    return {"vllm": vllm.__version__, "command": COMMAND, "cases": cases}


def main() -> int:
    """Record, or with ``--check`` compare with what is committed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true")
    content = record()
    if parser.parse_args().check:
        same = json.loads(gzip.decompress(FILE.read_bytes())) == content
        print("golden traces: " + ("as recorded" if same else "differ"))
        return 0 if same else 1
    text = json.dumps(content, separators=(",", ":"))
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_bytes(gzip.compress(text.encode(), mtime=0))
    rows = [row for case in content["cases"] for row in case["rows"]]
    preempted = sum(len(row["preempted"]) for row in rows)
    print(f"{FILE.name}: {len(content['cases'])} cases, {len(rows)} steps, {preempted} preemptions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
