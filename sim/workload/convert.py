"""Writers: a workload as CSV (lengths and hits) or as token-id JSON lines (whole prompts)."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from bssim.errors import InputError
from bssim.sim.workload.token_ids import exact_vocab_size, prompt_token_ids
from bssim.sim.workload.workload import Workload
from bssim.whole_file import replacing

_REPORT_EVERY = 1000


def convert(
    workload: Workload,
    path: str | Path,
    *,
    vocab_size: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write ``.csv`` or ``.jsonl`` with one of the writers below.

    Raises InputError for any other suffix.
    """
    suffix = Path(path).suffix
    if suffix == ".csv":
        write_csv(workload, path)
    elif suffix == ".jsonl":
        write_token_ids(workload, path, vocab_size=vocab_size, seed=seed, progress=progress)
    else:
        raise InputError(path, f"suffix {suffix!r}", ".csv or .jsonl")


def write_csv(workload: Workload, path: str | Path) -> None:
    """Write request_id, source, prompt_tokens, output_tokens, max_cached_tokens, in pool order.

    max_cached_tokens are the hits of a DFS order with an infinite cache. The write is atomic: no
    partial file appears.
    """
    frame = pd.DataFrame(
        {
            "request_id": [workload.request_id(i) for i in range(len(workload))],
            "source": np.array(workload.source_names)[workload.source],
            "prompt_tokens": workload.prompt_tokens,
            "output_tokens": workload.output_tokens,
            "max_cached_tokens": workload.max_cached_tokens,
        }
    )
    with replacing(path) as part:
        frame.to_csv(part, index=False)


def write_token_ids(
    workload: Workload,
    path: str | Path,
    *,
    vocab_size: int | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write one ``{"id", "prompt_token_ids", "output_tokens"}`` per line, and "priority" if set.

    Without ``vocab_size``, the vocabulary is just large enough to read back exactly the same tree,
    and at least 1,024. ``progress`` receives the number of lines written since its last call. The
    write is atomic: no partial file appears. This format has no sources, arrival times or output
    caps.
    """
    vocab = max(1024, exact_vocab_size(workload)) if vocab_size is None else vocab_size
    with replacing(path) as part, open(part, "w", encoding="utf-8") as out:
        for i in range(len(workload)):
            row: dict[str, object] = {
                "id": workload.request_id(i),
                "prompt_token_ids": prompt_token_ids(
                    workload, i, vocab_size=vocab, seed=seed
                ).tolist(),
                "output_tokens": int(workload.output_tokens[i]),
            }
            if workload.priority is not None:
                row["priority"] = int(workload.priority[i])
            out.write(json.dumps(row, separators=(",", ":")) + "\n")
            if progress is not None and (i + 1) % _REPORT_EVERY == 0:
                progress(_REPORT_EVERY)
    if progress is not None:
        progress(len(workload) % _REPORT_EVERY)
