"""Figure 10: compute and memory seconds per step over time, for BlendServe and `ratio`."""

from collections.abc import Mapping, Sequence

from bssim.experiments.plots import conditions_of, steps_figure
from bssim.experiments.result_pages.reproduction.four_traces import (
    BLENDSERVE,
    COST_MODEL,
    DFS,
    RATIO,
    RATIO_RUNS,
    RETAINED,
    lost_claims,
    measured,
    timelines_of,
)
from bssim.experiments.result_pages.study import Chapter
from bssim.experiments.result_pages.tables import by_workload, percent, span
from bssim.experiments.sweeps import Results

OTHER_LENGTHS = "paper/fig7a-lengths.yaml"
"""BlendServe with other knowledge of output lengths."""
MEMORY_BOUND, COMPUTE_BOUND = ["trace2", "trace4"], ["trace1", "trace3"]
DRAWN = ("trace1", "trace2")
SCHEDULERS = (DFS, BLENDSERVE, RATIO)

TEXT = """
The figure shows the same curves for a depth-first order, BlendServe, and `ratio`, bssim's own
scheduler, with lengths learned during the run. Uneven steps cost NanoFlow-DFS {dfs} of its time
(Figure 3 explains the measure), BlendServe {blendserve}, and `ratio` {ratio}.

In the paper's Figure 10, BlendServe keeps both curves level. Here it stays near the ratio of its
run for {near} of the time on traces 1 and 3 (NanoFlow-DFS: {near_dfs}), and for {near_memory} on
traces 2 and 4, which have more memory work than compute. Two effects limit this. While KV memory
is full ({full_even} of the time on traces 1 and 3, {full} on 2 and 4), no prompt can be admitted,
and the left side gets no work. After the last prompt token ({drain} of the time), nothing is left
to blend. A part of this is due to the sample, which holds a few dozen long outputs: on traces 2
and 4, the scheduler reaches {known} of the practical optimum with the exact moments of each
source (a run of Figure 7a) and {sampled} with the sample. `ratio` admits by the future peak of KV
memory and keeps compute for the drain, so {ratio_drain} of its time passes after the last prompt
token.
"""


class Figure10:
    """How level BlendServe keeps compute and memory, beside a depth-first order and `ratio`."""

    name = "fig10"
    title = "Figure 10: compute and memory of a step, blended orders"

    def sweeps(self, full: bool) -> Sequence[str]:
        """See `Study.sweeps`."""
        return (RETAINED, RATIO_RUNS, OTHER_LENGTHS)

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        timelines = timelines_of(results[RETAINED]) | timelines_of(results[RATIO_RUNS])
        found = measured(timelines)
        traces = list(dict.fromkeys(trace for trace, _ in timelines))

        def over(scheduler: str, field: str, among: Sequence[str] = traces) -> object:
            return span([getattr(found[trace, scheduler], field) for trace in among], percent)

        share, paper = "share_of_optimum", COST_MODEL
        sampled = by_workload(results[RETAINED], share, cost_model=paper)[BLENDSERVE]
        known = by_workload(results[OTHER_LENGTHS], share, "output_lengths", cost_model=paper)
        text = TEXT.format(
            known=span(known["mean"][MEMORY_BOUND], percent),
            sampled=span(sampled[MEMORY_BOUND], percent),
            dfs=over(DFS, "lost"),
            blendserve=over(BLENDSERVE, "lost"),
            ratio=over(RATIO, "lost"),
            near=over(BLENDSERVE, "near", COMPUTE_BOUND),
            near_dfs=over(DFS, "near", COMPUTE_BOUND),
            near_memory=over(BLENDSERVE, "near", MEMORY_BOUND),
            drain=over(BLENDSERVE, "drain"),
            ratio_drain=over(RATIO, "drain"),
            full=over(BLENDSERVE, "full", MEMORY_BOUND),
            full_even=over(BLENDSERVE, "full", COMPUTE_BOUND),
        )
        runs = results[RETAINED].read_runs()
        figures = {
            f"fig10-{trace}": steps_figure(
                {s: timelines[trace, s] for s in SCHEDULERS},
                trace,
                conditions=conditions_of(runs[runs["cost_model"] == COST_MODEL]),
            )
            for trace in DRAWN
        }
        captions = {
            f"fig10-{trace}": f"Compute and memory seconds of the steps over simulated time, "
            f"{trace}: NanoFlow-DFS, BlendServe and ratio."
            for trace in DRAWN
        }
        claims = lost_claims(self.name, found, traces, SCHEDULERS)
        return Chapter(claims, text, figures, captions)


FIG10 = Figure10()
