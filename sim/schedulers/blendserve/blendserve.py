"""BlendServe (ASPLOS '26): resource-aware prefix tree, output-length sampling, dual scan."""

from dataclasses import dataclass

import numpy as np

from bssim.cost_models.overlap import SequentialOverlap
from bssim.cost_models.step_cost import CostModel, StepWork
from bssim.sim.schedulers.blendserve.dual_scan import DualScan
from bssim.sim.schedulers.blendserve.planner import SHARING_KEPT, BlendPlanner, blend
from bssim.sim.schedulers.blendserve.resource_tree import UnitSeconds
from bssim.sim.schedulers.blendserve.step_fill import StepFill
from bssim.sim.schedulers.interface import Plan, PlanContext
from bssim.sim.schedulers.partition import dealt


@dataclass(frozen=True)
class BlendServe:
    """The paper's scheduler; see `blend` for the plan and `DualScan` for run time.

    ``adaptive`` goes beyond the paper: budgets follow the remaining work, and lengths are learned
    from all requests that run.
    """

    name: str = "blendserve"
    adaptive: bool = False

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`."""
        workload, unit = context.workload, UnitSeconds.of(context.cost_model)
        estimates = context.estimator.final()
        everything = np.ones(len(workload), np.bool_)
        parts = [np.arange(len(workload), dtype=np.int64)]
        if context.replicas > 1:
            hits = float(workload.max_cached_tokens.sum())
            whole = blend(workload, estimates, unit, everything, (1.0 - SHARING_KEPT) * hits)
            parts = dealt(
                whole.order.order,
                context.replicas,
                whole.loads.compute_s,
                whole.loads.memory_s,
            )
        free_tokens = free_tokens_under_weights(context.cost_model)
        policies = []
        for part in parts:
            planner = BlendPlanner(
                workload, part, context.estimator, unit, learn_from_all=self.adaptive
            )
            fill = StepFill(context.engine.batch_multiple, free_tokens)
            policies.append(
                DualScan(
                    planner.first_order(),
                    context.kv_capacity_tokens,
                    fill,
                    planner,
                    unit if self.adaptive else None,
                    pairs=not isinstance(context.overlap, SequentialOverlap),
                )
            )
        return Plan(tuple(policies), estimates.mean)


def free_tokens_under_weights(cost_model: CostModel) -> float:
    """Return the tokens that a step can compute while it loads the weights.

    This is the number of tokens at which the price of a step leaves its floor, found by bisection
    on the cost model (with peak constants: C / BW = 153 tokens on A100 in 16 bit).
    """

    def compute_s(tokens: float) -> float:
        work = StepWork(prefill_requests=1.0, prefill_tokens=tokens)
        return float(cost_model.step_cost(work).compute_s)

    floor = compute_s(1.0)
    low, high = 1.0, 65536.0
    while high - low > 1.0:
        middle = (low + high) / 2
        if compute_s(middle) <= 1.02 * floor:
            low = middle
        else:
            high = middle
    return low
