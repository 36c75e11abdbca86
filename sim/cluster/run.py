"""The entry point of this folder: run a plan on the replicas of a simulation."""

from collections.abc import Callable

from bssim.sim.cluster.disaggregated import run_disaggregated
from bssim.sim.cluster.disaggregation import Disaggregation, KVLink
from bssim.sim.cluster.fleet import Fleet, Progress
from bssim.sim.cluster.replica import Replica
from bssim.sim.cluster.side_by_side import run_side_by_side
from bssim.sim.engine import StepRow
from bssim.sim.result import Outcome
from bssim.sim.schedulers import Plan
from bssim.sim.setup import Setup


def run_replicas(
    setup: Setup,
    plan: Plan,
    *,
    on_step: Callable[[StepRow], None] | None = None,
    apart: tuple[Disaggregation, KVLink] | None = None,
    record_timeline: bool = False,
    exact_kv: bool = True,
    progress: Progress | None = None,
) -> tuple[list[Replica], Outcome]:
    """Run a plan on one replica per policy, or with prefill and decode ``apart``.

    Returns the replicas (prefill before decode) and the outcome of the whole run. ``on_step`` works
    only without ``apart``. Raises InputError if ``apart`` is given and the plan is not a fixed
    order.
    """
    fleet = Fleet(setup, record_timeline, exact_kv, progress)
    if apart is None:
        return run_side_by_side(fleet, plan, on_step)
    return run_disaggregated(fleet, plan, *apart)
