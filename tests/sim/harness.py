"""Small pools on a small engine: what the tests of the simulator start from."""

from collections.abc import Sequence
from typing import Any

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.paper import PaperCostModel
from bssim.sim.engine import EngineConfig
from bssim.sim.result import SimulationResult
from bssim.sim.schedulers import Scheduler
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload, flatten, from_token_ids, make_workload

LLM, HARDWARE = load_llm("llama-3-8b"), load_hardware("a100-80gb")
COST = PaperCostModel(LLM, HARDWARE)


def pool(prompts: Sequence[str], outputs: Sequence[int], **columns: Any) -> Workload:
    """A pool of prompts in which every character is a token."""
    tree, node = from_token_ids(*flatten([[ord(c) for c in p] for p in prompts]))
    return make_workload(
        "pool", [len(p) for p in prompts], outputs, tree=tree, node=node, **columns
    )


def unshared(prompts: Sequence[int], outputs: Sequence[int], **columns: Any) -> Workload:
    return make_workload("pool", prompts, outputs, **columns)


def engine(kv: int, **options: Any) -> EngineConfig:
    """Return a small engine with `kv` usable blocks."""
    knobs: dict[str, Any] = {
        "block_size": 1,
        "max_num_batched_tokens": 64,
        "max_num_seqs": 16,
        "overlap": "sequential",
    }
    return EngineConfig(num_gpu_blocks=kv + 1, **(knobs | options))


def run(
    workload: Workload, scheduler: str | Scheduler = "fcfs", *, kv: int = 1000, **options: Any
) -> SimulationResult:
    """Simulate on an engine with `kv` usable blocks; options: engine knobs, or of `simulate`."""
    ours = (
        "output_lengths",
        "seed",
        "dp",
        "record_timeline",
        "on_step",
        "cost_model",
        "on_oversize",
        "disaggregation",
    )
    settings: dict[str, Any] = {"output_lengths": "oracle", "cost_model": COST}
    settings |= {k: options.pop(k) for k in ours if k in options}
    return simulate(
        workload,
        scheduler=scheduler,
        llm=LLM,
        hardware=HARDWARE,
        engine=engine(kv, **options),
        **settings,
    )


def steps(workload: Workload, scheduler: str | Scheduler = "fcfs", **options: Any) -> list[dict]:
    """Return the rows of `--steps`."""
    rows: list[dict[str, Any]] = []
    run(workload, scheduler, on_step=rows.append, **options)
    return rows


def scheduled(rows: list[dict]) -> list[dict[str, int]]:
    return [row["scheduled"] for row in rows]


def column(rows: list[dict], name: str) -> list:
    return [row[name] for row in rows]
