"""Figure 3: compute and memory seconds per step over time, for existing orders."""

from collections.abc import Mapping, Sequence

from bssim.experiments.plots import conditions_of, steps_figure
from bssim.experiments.result_pages.reproduction.four_traces import (
    BALANCE,
    COST_MODEL,
    DFS,
    RETAINED,
    lost_claims,
    measured,
    timelines_of,
)
from bssim.experiments.result_pages.study import Chapter
from bssim.experiments.sweeps import Results

TRACE = "trace1"
COMPUTE_FIRST, MEMORY_FIRST = "dfs_compute_first", "dfs_memory_first"
SCHEDULERS = (BALANCE, DFS, COMPUTE_FIRST, MEMORY_FIRST)

TEXT = """
The figure shows the compute seconds (GEMMs, weight loads included) and memory seconds (decode
attention) of each step on {trace}, averaged over 1/600 of the run. It confirms the paper's point:
a depth-first order serves one source after the other, so one resource limits a step and the other
is idle. Which source comes first is arbitrary and moves the valley. A random order mixes the
sources but does not keep them level. At first, long outputs accumulate beside prompts that fill
every step. KV memory is full for {full:.0%} of the time, and then no prompt is admitted. At the
end, the last long outputs run alone: {drain:.0%} of the time passes after the last prompt token.
Figure 9 shows how much sharing this order loses.

One number measures how uneven the steps are. Overlapped seconds are convex in compute and memory,
so the same work with one ratio in every step would take less time. The difference is *lost*:
{dfs:.0%} of the time of the depth-first order, {compute:.0%} with the compute-intensive source
first, {memory:.0%} with the memory-intensive source first, and {random:.0%} of the time of the
random order. The paper gives no number for this figure.
"""


class Figure3:
    """What depth-first and random orders do to the resources of a step."""

    name = "fig3"
    title = "Figure 3: compute and memory of a step, existing orders"

    def sweeps(self, full: bool) -> Sequence[str]:
        """See `Study.sweeps`."""
        return (RETAINED,)

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        timelines = timelines_of(results[RETAINED])
        runs = results[RETAINED].read_runs()
        found = measured(timelines)
        return Chapter(
            claims=lost_claims(self.name, found, [TRACE], SCHEDULERS),
            text=TEXT.format(
                trace=TRACE,
                full=found[TRACE, BALANCE].full,
                drain=found[TRACE, BALANCE].drain,
                dfs=found[TRACE, DFS].lost,
                compute=found[TRACE, COMPUTE_FIRST].lost,
                memory=found[TRACE, MEMORY_FIRST].lost,
                random=found[TRACE, BALANCE].lost,
            ),
            figures={
                "fig3": steps_figure(
                    {s: timelines[TRACE, s] for s in SCHEDULERS},
                    TRACE,
                    conditions=conditions_of(runs[runs["cost_model"] == COST_MODEL]),
                )
            },
            captions={
                "fig3": f"Compute and memory seconds of the steps over simulated time, {TRACE}, "
                "four orders on the NanoFlow preset."
            },
        )


FIG3 = Figure3()
