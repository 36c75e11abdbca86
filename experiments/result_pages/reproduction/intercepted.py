"""A scheduler whose policy can be watched: a study's own functions take chosen calls.

The policy's decisions, and so all results, stay the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from bssim.sim.engine import AdmissionPolicy
from bssim.sim.schedulers import Plan, PlanContext, Scheduler

Calls = Mapping[str, Callable[..., Any]]
"""Method name -> the function to call instead."""


class InterceptedPolicy:
    """Passes everything on to a policy, except for the replaced calls."""

    def __init__(self, policy: AdmissionPolicy, calls: Calls) -> None:
        """``calls`` replace methods; each must call the policy's own method."""
        self._policy = policy
        self.__dict__.update(calls)

    def __getattr__(self, name: str) -> Any:
        """Return the policy's own attribute, such as the current `num_waiting`."""
        return getattr(self._policy, name)


@dataclass(frozen=True)
class InterceptedScheduler:
    """Plans like another scheduler; `replaced` gives the calls to replace in each policy."""

    scheduler: Scheduler
    replaced: Callable[[AdmissionPolicy], Calls]

    @property
    def name(self) -> str:
        """The other scheduler's."""
        return self.scheduler.name

    def plan(self, context: PlanContext) -> Plan:
        """See `Scheduler.plan`."""
        plan = self.scheduler.plan(context)
        policies = tuple(
            cast(AdmissionPolicy, InterceptedPolicy(policy, self.replaced(policy)))
            for policy in plan.policies
        )
        return replace(plan, policies=policies)
