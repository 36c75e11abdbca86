"""``bssim plan``: put the lines of an OpenAI batch file into the chosen order."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from bssim.errors import InputError
from bssim.experiments.cli import options
from bssim.experiments.cli.groups import grouped
from bssim.experiments.cli.terminal import request_progress, say
from bssim.wording import counted


@dataclass(frozen=True, slots=True)
class PlanOptions(options.RunOptions):
    """How the file will be served: on vLLM, unless said otherwise."""

    engine: options.Engine = "vllm"


@grouped
def plan(
    batch: Annotated[Path, typer.Argument(help="OpenAI batch file (JSON lines).")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    run: PlanOptions,
    tp: options.TensorParallel = 1,
    pp: options.PipelineParallel = None,
    dp: options.DataParallel = 1,
    seed: options.Seed = 0,
    tokenizer: options.Tokenizer = None,
    default_output_tokens: options.DefaultOutputTokens = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the same lines in the order in which the scheduler admits them.

    For `vllm run-batch` or Ray Data, which keep a file's order. Every line of the batch is in the
    output exactly once, byte for byte; requests without prompt or output, and those dropped as
    oversize, stand at its end. With --dp N there is a file a replica, part.0.jsonl, part.1.jsonl,
    ...: each has its share of the work, and requests with the same prefix stay together; dropped
    ones stand at the end of the last.

    \b
    Example:
      bssim plan batch.jsonl -o ordered.jsonl --tokenizer bytes:4
      bssim plan batch.jsonl -o part.jsonl --tokenizer bytes:4 -m llama-3-70b --tp 4 --dp 2
    """
    from bssim.experiments.sweeps.run_cell import simulate_cell
    from bssim.sim.workload.readers.batch_file import read_batch_file
    from bssim.whole_file import naming

    if batch.exists() and not (batch.is_file() or batch.is_dir()):
        raise InputError("BATCH", f"{str(batch)!r}, a pipe or device", "a file: it is read twice")
    files = [out] if dp == 1 else [out.with_suffix(f".{k}{out.suffix}") for k in range(dp)]
    for file in files:
        options.require_writable(file, "--out")
    options.require_distinct((("--out", file) for file in files), batch, "the batch file itself")
    pool_options = options.PoolOptions(
        seed=seed,
        format="openai-batch",
        tokenizer=tokenizer,
        default_output_tokens=default_output_tokens,
    )
    cell = run.cell(pool_options.of(str(batch)), "plan", tp=tp, dp=dp, pp=pp)
    with request_progress(quiet) as progress:
        result = simulate_cell(cell, progress=progress)
    order, replica = result.schedule.order, result.schedule.replica
    parts = [
        [result.workload.request_id(i) for i in order[replica == k].tolist()] for k in range(dp)
    ]
    # By id: the pool lacks what the reader dropped (no prompt, no output) and what is oversize.
    read = read_batch_file(batch, tokenizer=tokenizer, default_output_tokens=default_output_tokens)
    lines = dict(zip(read.ids, read.lines, strict=True))
    planned = set(chain(*parts))
    parts[-1] += [request for request in lines if request not in planned]
    for file, part in zip(files, parts, strict=True):
        with naming(file):
            file.write_bytes("".join(lines[request] + "\n" for request in part).encode())
    for note in result.notes:
        say(f"note: {note}", quiet)
    if json:
        from json import dumps

        facts = {
            "out": str(out),
            "files": [str(file) for file in files],
            "num_requests": len(lines),
            "scheduler": run.scheduler,
        }
        typer.echo(dumps(facts | {"sharing": result.sharing, "sharing_max": result.sharing_max}))
    else:
        for file, part in zip(files, parts, strict=True):
            say(f"wrote {counted(len(part), 'request')} to {file}", quiet)
