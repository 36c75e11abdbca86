"""A scheduler's run-time policy for a real engine, planned as the simulator plans it."""

import numpy as np

from bssim.cost_models.hardware import HardwareSpec
from bssim.cost_models.overlap import parse_overlap
from bssim.cost_models.step_cost import CostModel
from bssim.sim.engine.config import EngineConfig
from bssim.sim.lengths.estimators import make_estimator
from bssim.sim.schedulers.interface import AdmissionPolicy, PlanContext
from bssim.sim.schedulers.registry import make_scheduler
from bssim.sim.workload.workload import Workload


def run_time_policy(
    workload: Workload,
    *,
    scheduler: str,
    engine: EngineConfig,
    hardware: HardwareSpec,
    cost_model: CostModel,
    output_lengths: str,
    seed: int,
) -> AdmissionPolicy:
    """Return a fresh policy for one replica of ``engine``, whose num_gpu_blocks must be known.

    The same seed gives the policy that `simulate` runs.
    """
    assert engine.num_gpu_blocks is not None
    plan_rng, sample_rng = np.random.default_rng(seed).spawn(2)
    plan = make_scheduler(scheduler).plan(
        PlanContext(
            workload=workload,
            estimator=make_estimator(output_lengths, workload, sample_rng),
            engine=engine,
            cost_model=cost_model,
            overlap=parse_overlap(engine.overlap, hardware.corun),
            kv_capacity_tokens=(engine.num_gpu_blocks - 1) * engine.block_size,
            replicas=1,
            rng=plan_rng,
        )
    )
    return plan.policies[0]
