"""Run a schedule again: the same requests on the same replicas in the same order."""

from dataclasses import dataclass

import numpy as np

from bssim.errors import InputError
from bssim.sim.schedule import Schedule
from bssim.sim.schedulers.interface import Plan, PlanContext
from bssim.sim.schedulers.static_order import static_plan


@dataclass(frozen=True, eq=False)
class ScheduleOrder:
    """Admits requests in the order of a schedule, with its estimates.

    For a fixed order (fcfs, random, dfs), the run is the same as the original one. If the original
    policy also paced prefills or delayed requests, only its order is kept.
    """

    schedule: Schedule

    @property
    def name(self) -> str:
        """The scheduler that made the schedule."""
        return self.schedule.scheduler

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`. Raises InputError for another workload or too few replicas."""
        schedule, workload = self.schedule, context.workload
        if schedule.workload_digest != workload.digest():
            raise InputError.saying(
                "schedule",
                (
                    f"made for workload {schedule.workload!r}, "
                    f"digest {schedule.workload_digest[:12]}...; "
                    f"found {workload.name!r}, digest {workload.digest()[:12]}..."
                ),
            )
        last = int(schedule.replica.max())
        if last >= context.replicas:
            raise InputError.saying(
                "schedule",
                f"uses replica {last}; found dp {context.replicas}, expected at least {last + 1}",
            )
        parts = [schedule.order[schedule.replica == k] for k in range(context.replicas)]
        estimates = np.empty(len(workload))
        estimates[schedule.order] = schedule.estimated_output_tokens
        return static_plan(context, parts, estimates)
