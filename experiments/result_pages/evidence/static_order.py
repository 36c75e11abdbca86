"""The gain of order alone on stock vLLM: each scheduler's order, first come, first served."""

from collections.abc import Mapping, Sequence

import pandas as pd

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.result_pages.tables import frame_table
from bssim.experiments.sweeps import Results, WorkloadRef, build_workload
from bssim.sim.engine import load_preset
from bssim.sim.result import SimulationResult
from bssim.sim.schedulers import ScheduleOrder, Scheduler
from bssim.sim.simulate import simulate
from bssim.sim.workload import Workload

NUM_REQUESTS = 40_000
TRACES = ("trace2", "trace4")
SCHEDULERS = ("dfs", "blendserve", "ratio")
SLOTS = (256, 1024)
BASELINE = "fcfs"


class StaticOrder:
    """Run-time admission beside the same order as a file, on the step-exact ``vllm`` preset."""

    name = "ratio_order"
    title = "Stock vLLM: what the order alone is worth"

    def __init__(self, num_requests: int = NUM_REQUESTS) -> None:
        """``num_requests``: requests of each trace."""
        self.num_requests = num_requests

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return nothing: a replay needs the schedule of a run, so this study runs its own."""
        return ()

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """Return throughput over fcfs by scheduler, at run time and as a file."""
        rows: dict[tuple[str, str], dict[str, float]] = {}
        for trace in TRACES:
            pool = build_workload(WorkloadRef(trace, self.num_requests, seed=0))
            for slots in SLOTS:
                column = f"{trace}, {slots} slots"
                base = _run(pool, BASELINE, slots).makespan_s
                for scheduler in SCHEDULERS:
                    at_run_time = _run(pool, scheduler, slots)
                    replayed = _run(pool, ScheduleOrder(at_run_time.schedule), slots)
                    for how, run in (("at run time", at_run_time), ("as a file", replayed)):
                        rows.setdefault((scheduler, how), {})[column] = base / run.makespan_s
        table = pd.DataFrame(list(rows.values()), index=pd.MultiIndex.from_tuples(list(rows)))
        table.index.names = ["scheduler", "admission"]
        claims = [
            Claim(
                id=f"ratio_order.{scheduler}.{how.replace(' ', '_')}",
                what=f"{scheduler} {how} over {BASELINE} on the vllm preset, mean",
                paper=None,
                ours=sum(gains.values()) / len(gains),
            )
            for (scheduler, how), gains in rows.items()
        ]
        text = (
            f"Throughput over `{BASELINE}`, {self.num_requests:,} requests per trace, "
            "`roofline`, `survival`. *At run time*: the scheduler admits and paces inside the "
            "engine. *As a file*: an engine that does not know the scheduler gets its admission"
            " order, as `bssim plan` writes it.\n\n"
            + frame_table(table, lambda value: f"{value:.3f}")
        )
        return Chapter(claims, text)


def _run(pool: Workload, scheduler: str | Scheduler, slots: int) -> SimulationResult:
    llm, hardware = load_llm("llama-3-8b"), load_hardware("a100-80gb")
    return simulate(
        pool,
        scheduler=scheduler,
        llm=llm,
        hardware=hardware,
        engine=load_preset("vllm").with_settings({"max_num_seqs": slots}),
        cost_model=make_cost_model("roofline", llm, hardware, tp=1),
        output_lengths="survival",
    )


STATIC_ORDER = StaticOrder()
