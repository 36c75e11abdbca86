"""Random simulations of tiny pools: no bound is beaten, and recorded steps are the fast ones.

``python -m tests.faults.simulations`` prints counts. A case has the same pool in every run.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from bssim.cost_models.fitted import FittedCostModel
from bssim.cost_models.roofline import RooflineCostModel
from bssim.errors import InputError
from bssim.sim.result import SimulationResult
from bssim.sim.schedulers import scheduler_names
from bssim.sim.workload import Workload
from tests.sim.harness import COST, HARDWARE, LLM, pool, run

SECONDS = 25
"""The most processor time of a case."""
FITTED = (
    "{fixed: 0.003, tokens: 3.0e-5}",
    "{tokens: 1.0e-5}",
    "{fixed: 0.0001, tokens: 1.0e-5, decode_context_tokens: 1.0e-7, tokens_over_32: 1.0e-5}",
    "{fixed: 0.003, decode_requests: 1.0e-4, prefill_attention_pairs: 1.0e-8}",
    # noisy steps: decode steps are free, or only they cost anything
    "{prefill_context_tokens: 5.0e-5, tokens_over_32: 1.0e-4}",
    "{sampled_tokens: 0.01}",
    "{decode_context_tokens: 1.0e-6}",
)


def cost_models() -> list[Any]:
    """Return one of each kind, and some that are fitted."""
    found: list[Any] = [COST, RooflineCostModel(LLM, HARDWARE)]
    with tempfile.TemporaryDirectory() as folder:
        for terms in FITTED:
            path = Path(folder) / "fitted.yaml"
            path.write_text(
                f"cost_model: fitted\nseconds_per: {terms}\nmax_tokens: 64\nsource: here\n"
            )
            found.append(FittedCostModel.read(path))
    return found


def _pool(rng: random.Random) -> Workload:
    stems = [_text(rng, "ab", rng.choice((4, 9, 30))) for _ in range(rng.randint(1, 4))]
    many = rng.choice((1, 2, 5, 12, 12, 40))
    prompts = [rng.choice(stems) + _text(rng, "abc", 7) or "z" for _ in range(many)]
    if rng.random() < 0.2:
        prompts = rng.choices(prompts, k=many)
    outputs = [rng.randint(1, rng.choice((1, 3, 12, 60))) for _ in prompts]
    return pool(prompts, outputs, priority=[rng.randint(0, 2) for _ in prompts])


def _text(rng: random.Random, letters: str, most: int) -> str:
    return "".join(rng.choices(letters, k=rng.randint(0, most)))


def _options(workload: Workload, rng: random.Random) -> dict[str, Any]:
    """Return knobs of the engine and options; the cache holds the largest request, and not much."""
    block = rng.choice((1, 1, 2, 4, 16))
    need = int((workload.prompt_tokens + workload.output_tokens - 1).max())
    budget = rng.choice((1, 1, 2, 8, 16, 64, 512))
    options = {
        "block_size": block,
        "kv": -(-need // block) + rng.choice((0, 1, 3, 8, 40, 1000)),
        "max_num_batched_tokens": budget,
        "max_num_seqs": min(rng.choice((1, 2, 3, 8, 64)), budget),
        "batch_multiple": rng.choice((1, 1, 8)),
        "admission": rng.choice(("optimistic", "reserve")),
        "enable_prefix_caching": rng.random() < 0.7,
        "prefix_retention": rng.choice(("lru", "none")),
        "enable_chunked_prefill": budget < need or rng.random() < 0.6,
        "long_prefill_token_threshold": rng.choice((0, 0, 1, 3)),
        "policy": rng.choice(("fcfs", "priority")),
        "async_scheduling": rng.random() < 0.4,
        "watermark": rng.choice((0.0, 0.0, 0.1, 0.5, 0.99)),
        "output_lengths": rng.choice(("oracle", "sampled", "mean")),
        "overlap": rng.choice(("sequential", "frontier", "perfect", "gamma:0.2")),
        "seed": rng.randint(0, 3),
    }
    way = rng.random()
    if way < 0.3:
        options["dp"] = rng.choice((2, 3))
    elif way < 0.5:
        options["disaggregation"] = rng.choice(("1P1D", "1P3D", "2P1D"))
    return options


def broken(result: SimulationResult) -> list[str]:
    """Return what a result says that cannot be."""
    found = []
    if result.sharing > result.sharing_max:
        found.append(f"sharing {result.sharing} of at most {result.sharing_max}")
    for bound in fields(result.bounds):
        least = getattr(result.bounds, bound.name)
        if least > result.makespan_s * (1 + 1e-9):
            found.append(f"{bound.name} {least}, makespan {result.makespan_s}")
    if not np.all(np.isfinite(result.finish_s)):
        found.append("a request without an end")
    return found


def _differences(fast: SimulationResult, recorded: SimulationResult) -> list[str]:
    pairs = {
        "steps": (fast.steps, recorded.steps),
        "preemptions": (fast.preemptions, recorded.preemptions),
        "order": (fast.schedule.order.tolist(), recorded.schedule.order.tolist()),
    }
    found = [f"{name}: {a} fast, {b} recorded" for name, (a, b) in pairs.items() if a != b]
    if not np.allclose(fast.finish_s, recorded.finish_s, rtol=1e-9):
        found.append("finish_s")
    return found


def simulations(cases: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Simulate ``cases`` pools, each again with recorded steps; return counts and what is wrong."""
    counts, wrong = Counter[str](), list[str]()
    models = cost_models()
    for case in range(cases):
        rng = random.Random(f"{seed}/{case}")
        workload = _pool(rng)
        options = _options(workload, rng)
        options["cost_model"] = rng.choice(models)
        scheduler = rng.choice(scheduler_names())
        began = time.process_time()
        try:
            result = run(workload, scheduler, **options)
            found = broken(result)
            if "disaggregation" not in options:
                recorded = run(workload, scheduler, on_step=lambda row: None, **options)
                found += _differences(result, recorded)
            counts["simulated"] += 1
        except InputError:
            counts["refused"] += 1
            continue
        except Exception as error:
            found = [repr(error)]
        if time.process_time() - began > SECONDS:
            found.append(f"more than {SECONDS} s")
        if found:
            counts["wrong"] += 1
            wrong.append(f"case {case} of seed {seed}: {scheduler} {options}: {found}")
    return counts, wrong


def main() -> None:
    """Run the campaign, print its counts, and fail if a case went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts, wrong = simulations(options.cases, options.seed)
    print(f"{options.cases:,} pools: {dict(counts)}")
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
