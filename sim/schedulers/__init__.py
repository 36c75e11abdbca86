"""Schedulers: which request is admitted next.

To add a scheduler, write a file here with a class that has `Scheduler`'s name and `plan`, and add a
line to `registry.py`. A scheduler whose order is fixed before the run subclasses `FixedOrder`; any
other writes its own `AdmissionPolicy` (see `bssim.sim.engine`).
"""

from bssim.sim.schedulers.interface import Plan, PlanContext, Scheduler
from bssim.sim.schedulers.partition import RUNS_PER_REPLICA, contiguous, dealt, round_robin
from bssim.sim.schedulers.registry import (
    ABOUT,
    fixed_order_names,
    make_scheduler,
    scheduler_names,
    variant_names,
)
from bssim.sim.schedulers.schedule_order import ScheduleOrder
from bssim.sim.schedulers.static_order import FixedOrder, PriorityOrder, StaticOrder, static_plan

__all__ = [
    "ABOUT",
    "RUNS_PER_REPLICA",
    "FixedOrder",
    "Plan",
    "PlanContext",
    "PriorityOrder",
    "ScheduleOrder",
    "Scheduler",
    "StaticOrder",
    "contiguous",
    "dealt",
    "fixed_order_names",
    "make_scheduler",
    "round_robin",
    "scheduler_names",
    "static_plan",
    "variant_names",
]
