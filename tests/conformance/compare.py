"""What bssim does with a load, and where it first differs from what vLLM did."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.roofline import RooflineCostModel
from bssim.sim.engine import AdmissionPolicy, load_preset
from bssim.sim.schedulers import Plan, PlanContext, PriorityOrder, StaticOrder
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload

LLM, HARDWARE = load_llm("llama-3-8b"), load_hardware("h100-sxm")


@dataclass(frozen=True)
class Serving:
    """A scheduler whose policy is given."""

    policy: AdmissionPolicy
    name: str = "given"

    def plan(self, context: PlanContext) -> Plan:
        return Plan((self.policy,), context.estimator.final().mean)


def submitted(
    workload: Workload, engine: dict[str, Any], order: Sequence[int] | None = None
) -> AdmissionPolicy:
    """Return vLLM's own waiting queue for a pool submitted in ``order`` (default: the pool's)."""
    queue = np.arange(len(workload)) if order is None else np.asarray(order, dtype=np.int64)
    if engine.get("policy") == "priority":
        return PriorityOrder(queue, workload.priority)
    return StaticOrder(queue)


def simulated_rows(
    workload: Workload, engine: dict[str, Any], policy: AdmissionPolicy
) -> list[dict[str, Any]]:
    """Return bssim's steps for the whole pool, admitted by ``policy``."""
    rows: list[dict[str, Any]] = []
    simulate(
        workload,
        scheduler=Serving(policy),
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
