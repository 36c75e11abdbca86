"""What bssim does with a load, and where it first differs from what vLLM did."""

from dataclasses import replace
from typing import Any

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm.config import load_llm
from bssim.cost_models.roofline import RooflineCostModel
from bssim.sim.engine.config import load_preset
from bssim.sim.simulate import simulate
from bssim.sim.workload.workload import Workload

LLM, HARDWARE = load_llm("llama-3-8b"), load_hardware("h100-sxm")


def simulated_rows(workload: Workload, engine: dict[str, Any]) -> list[dict[str, Any]]:
    """Return bssim's steps for the whole pool queued in its own order."""
    rows: list[dict[str, Any]] = []
    simulate(
        workload,
        scheduler="fcfs",
        llm=LLM,
        hardware=HARDWARE,
        cost_model=RooflineCostModel(LLM, HARDWARE),
        output_lengths="oracle",
        engine=replace(load_preset("vllm"), **engine),
        on_step=rows.append,
    )
    return rows


def difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str | None:
    """Return the first step that differs, in words; None where all are equal.

    The order of ``scheduled`` counts: dicts that differ in order only are different here.
    """
    for k, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        for key in b:
            same = a[key] == b[key] and (
                key != "scheduled" or list(a[key].items()) == list(b[key].items())
            )
            if not same:
                return f"step {k}, {key}: bssim {a[key]}, vLLM {b[key]}"
    if len(ours) != len(theirs):
        return f"bssim took {len(ours)} steps, vLLM {len(theirs)}"
    return None
