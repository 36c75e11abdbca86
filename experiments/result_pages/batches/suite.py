"""The suite as files: a batch file of each kind, and the output file of its run."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bssim.errors import unknown_name
from bssim.experiments.result_pages.batches.kinds import KINDS, Request
from bssim.experiments.result_pages.batches.text import Writer
from bssim.sim.workload import Workload
from bssim.sim.workload.readers import ReaderOptions, SourceText, parse_batch


def requests_of(kind: str, count: int, seed: int) -> list[Request]:
    """Return ``count`` requests of a kind; the same arguments give the same requests.

    Raises InputError for an unknown kind.
    """
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return KINDS[kind](Writer(rng), count)


def batch_lines(requests: list[Request]) -> Iterator[str]:
    """Yield the lines of the batch file."""
    for i, request in enumerate(requests):
        url = "/v1/completions" if "prompt" in request.body else "/v1/chat/completions"
        line = {"custom_id": f"r{i}", "method": "POST", "url": url, "body": request.body}
        yield json.dumps(line)


def output_lines(requests: list[Request]) -> Iterator[str]:
    """Yield the lines of the output file, which have lengths but no answers."""
    for i, request in enumerate(requests):
        usage = {"completion_tokens": request.output_tokens}
        body = {"usage": usage}
        response = {"status_code": 200, "body": body}
        yield json.dumps({"custom_id": f"r{i}", "response": response, "error": None})


def write_batch(folder: Path, kind: str, count: int, seed: int) -> tuple[Path, Path]:
    """Write a batch file and its output file; return their names."""
    requests = requests_of(kind, count, seed)
    batch, output = folder / f"{kind}.jsonl", folder / f"{kind}.output.jsonl"
    batch.write_text("".join(f"{line}\n" for line in batch_lines(requests)))
    output.write_text("".join(f"{line}\n" for line in output_lines(requests)))
    return batch, output


def workload_of(kind: str, requests: list[Request]) -> Workload:
    """Return the pool of a batch file with the drawn outputs; the caps are ``max_tokens``."""
    text = "".join(f"{line}\n" for line in batch_lines(requests))
    pool = parse_batch(
        SourceText(kind, kind, text, options=ReaderOptions(tokenizer="bytes:4"))
    ).workload
    outputs = np.array([request.output_tokens for request in requests], dtype=np.int64)
    return replace(pool, output_tokens=outputs)
