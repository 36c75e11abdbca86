"""The public traces as loads for vLLM: 2,000 requests each, a KV cache that is often full."""

import os
from pathlib import Path
from typing import Any

from bssim.sim.workload import Workload, load_workload

REQUESTS = 2000
BLOCKS = {
    "azure2023_code.csv": 6000,
    "azure2023_conv.csv": 5000,
    "nanoflow_sharegpt.csv": 5200,
    "mooncake_conversation.jsonl": 30000,
    "mmlu_5shot_llama3_lengths.csv": 600,
}
"""num_gpu_blocks for each file; every request fits, not all that run do."""


def folder() -> Path | None:
    """Return the folder named by BSSIM_TRACES; None where it is not set."""
    name = os.environ.get("BSSIM_TRACES")
    return Path(name) if name else None


def trace_load(file: str) -> tuple[Workload, dict[str, Any]]:
    """Return the load of a trace file and the engine it meets."""
    where = folder()
    assert where is not None
    workload = load_workload(where / file, num_requests=REQUESTS, seed=0)
    return workload, {
        "num_gpu_blocks": BLOCKS[file],
        "max_num_batched_tokens": 8192,
        "max_num_seqs": 256,
    }
