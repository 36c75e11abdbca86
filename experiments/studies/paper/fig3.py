"""Figure 3: compute and memory seconds a step over time, of the orders that exist."""

from collections.abc import Mapping, Sequence

from bssim.experiments.plots.steps import steps_figure
from bssim.experiments.studies.paper.four_traces import (
    BALANCE,
    DFS,
    RETAINED,
    lost_claims,
    measured,
    timelines_of,
)
from bssim.experiments.studies.study import Chapter
from bssim.experiments.sweeps.store import Results

TRACE = "trace1"
COMPUTE_FIRST, MEMORY_FIRST = "dfs_compute_first", "dfs_memory_first"
SCHEDULERS = (BALANCE, DFS, COMPUTE_FIRST, MEMORY_FIRST)

TEXT = """
Compute seconds (GEMMs, weight loads included) and memory seconds (decode attention) of each step
on {trace}, averaged over 1/600 of the run. The paper's point shows: a depth-first order
takes the sources one after the other, so a step is bound by one resource and leaves the other
idle. Which source comes first is arbitrary; it moves the valley. A random order mixes the sources,
but nothing holds it level: at first the long outputs pile up beside prompts that fill every step,
KV memory is full for {full:.0%} of the time, in which no prompt is admitted, and in the end the
last long outputs run alone: {drain:.0%} of the time passes after the last prompt token. What it
loses of the sharing is in Figure 9.

One number for unevenness: overlapped seconds are convex in compute and memory, so the same work at
one ratio in every step would take less; that part of the time is *lost*: {dfs:.0%} of a
depth-first order's, {compute:.0%} with the compute-intensive source first, {memory:.0%} with the
memory-intensive one first, {random:.0%} of the random order's. The paper gives no number for this
figure.
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
            figures={"fig3": steps_figure({s: timelines[TRACE, s] for s in SCHEDULERS}, TRACE)},
            captions={
                "fig3": f"Compute and memory seconds a step over simulated time, {TRACE}, four "
                "orders on the NanoFlow preset."
            },
        )


FIG3 = Figure3()
