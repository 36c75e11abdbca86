"""Figure 6: how the dual scan divides KV memory, in the paper's example and over a run."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.experiments.plots import COMPUTE_COLOUR, SINGLE_IN, head, new_figure, styled
from bssim.experiments.result_pages.reproduction.four_traces import COST_MODEL
from bssim.experiments.result_pages.reproduction.intercepted import Calls, InterceptedScheduler
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.sweeps import Results, WorkloadRef, build_workload
from bssim.sim.engine import AdmissionPolicy, EngineView, load_preset
from bssim.sim.schedulers.blendserve import BlendServe, DualScan, partition_memory
from bssim.sim.simulate import simulate

LEFT, RIGHT, ROOT = 3.73, 0.096, 1.27
"""Densities of the paper's example."""
MEMORY_GB = 60.0
PAPER_GB = (19.3, 40.7)
TRACE = "trace1"
NUM_REQUESTS = 200_000
"""Half the trace: the split is the same as over the whole trace, and the run is shorter."""
MEMORY_SIDE_COLOUR = "#0072B2"

TEXT = """
The dual scan divides KV memory between its left (compute-intensive) and right (memory-intensive)
side so that their densities average to the density of the pool. The paper's example has the
densities {left} and {right}, {root} for the pool, and {memory:.0f} GB. `partition_memory`, the
function that the scheduler runs, gives {ours_left:.2f} and {ours_right:.2f} GB. The printed
densities are rounded, which explains the difference: a pool of density 1.265, which also rounds
to 1.27, gives {low:.2f}.

In a run of {trace} ({requests:,} requests, lengths from the sample), nothing is divided while the
sample is being admitted. Then the left side gets little: the median is {typical:.0%}. OpenVid is
not far below the density of the pool and BurstGPT is far above it, so a small left side balances
much memory. The left part grows with every new plan that knows more of the sampled long outputs.
When the units at both cursors are on one side of the pool's density, as near the end, all memory
goes to the nearer one; the paper leaves this case open. The division ends with the last
admission, {admitted:.0%} into the run. From then on the long outputs drain.
"""


class Figure6:
    """The example of the paper, and the split over a run of trace 1."""

    name = "fig6"
    title = "Figure 6: the memory split"

    def __init__(self, num_requests: int = NUM_REQUESTS) -> None:
        """``num_requests``: requests of the trace."""
        self.num_requests = num_requests

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return nothing: this study watches a run of its own."""
        return ()

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        share = partition_memory(LEFT, RIGHT, ROOT)
        ours = (share * MEMORY_GB, (1 - share) * MEMORY_GB)
        claims = [
            Claim(
                f"fig6.example.{side}_gb",
                f"{side} side of {MEMORY_GB:.0f} GB (GB)",
                paper,
                round(mine, 2),
                "the densities that the paper prints are rounded",
            )
            for side, paper, mine in zip(("left", "right"), PAPER_GB, ours, strict=True)
        ]
        split = split_over_time(self.num_requests)
        waiting = split["waiting"]
        left = split["left_gb"] / (split["left_gb"] + split["right_gb"])
        text = TEXT.format(
            left=LEFT,
            right=RIGHT,
            root=ROOT,
            memory=MEMORY_GB,
            ours_left=ours[0],
            ours_right=ours[1],
            low=partition_memory(LEFT, RIGHT, 1.265) * MEMORY_GB,
            trace=TRACE,
            requests=self.num_requests,
            typical=float(left[waiting].median()),
            admitted=float(split["hours"][waiting].max() / split["hours"].max()),
        )
        return Chapter(
            claims=claims,
            text=text,
            figures={
                "fig6": split_figure(
                    split,
                    f"{TRACE}, {self.num_requests:,} requests, llama-3-8b on a100-80gb, nanoflow, "
                    f"{COST_MODEL} cost model, sampled lengths",
                )
            },
            captions={
                "fig6": f"KV memory given to the two sides over a run of BlendServe on {TRACE}, "
                "until the last request is admitted, and the KV memory in use."
            },
        )


def split_over_time(num_requests: int) -> pd.DataFrame:
    """Run BlendServe on the trace and return one row per step.

    Columns: hours (simulated, at the step's start), left_gb, right_gb (given), held_gb (in use),
    waiting (whether a request still waits).
    """
    llm, hardware = load_llm("llama-3-8b"), load_hardware("a100-80gb")
    seen: list[tuple[int, float, float, bool]] = []

    def watched(policy: AdmissionPolicy) -> Calls:
        assert isinstance(policy, DualScan)
        return {"begin_step": _noting(policy, seen)}

    result = simulate(
        build_workload(WorkloadRef(TRACE, num_requests, seed=0)),
        scheduler=InterceptedScheduler(BlendServe(), watched),
        llm=llm,
        hardware=hardware,
        engine=load_preset("nanoflow"),
        cost_model=make_cost_model(COST_MODEL, llm, hardware),
        record_timeline=True,
    )
    (timeline,) = result.timelines
    start_s = np.cumsum(timeline.step_s) - timeline.step_s
    asked = np.array([line[0] for line in seen])  # not in steps that could admit nothing
    last = np.searchsorted(asked, np.arange(len(start_s)), side="right") - 1
    gb = llm.kv_bytes_per_token / 1e9
    return pd.DataFrame(
        {
            "hours": start_s / 3600,
            "left_gb": np.array([line[1] for line in seen])[last] * gb,
            "right_gb": np.array([line[2] for line in seen])[last] * gb,
            "held_gb": timeline.kv_tokens * gb,
            "waiting": np.array([line[3] for line in seen])[last],
        }
    )


def _noting(
    policy: DualScan, seen: list[tuple[int, float, float, bool]]
) -> Callable[[EngineView], None]:
    def begin_step(engine: EngineView) -> None:
        policy.begin_step(engine)
        seen.append((engine.step, *policy.memory_split, policy.num_waiting > 0))

    return begin_step


def split_figure(split: pd.DataFrame, conditions: str = "") -> Figure:
    """Return a figure of the two sides' memory, stacked, and the memory in use."""
    drawn = split.iloc[:: max(1, len(split) // 1500)]
    given = drawn[drawn["waiting"]]
    with styled():
        figure = new_figure(SINGLE_IN, 2.3)
        axes = figure.add_subplot()
        axes.stackplot(
            given["hours"],
            given["left_gb"],
            given["right_gb"],
            colors=[COMPUTE_COLOUR, MEMORY_SIDE_COLOUR],
            labels=["left (compute)", "right (memory)"],
            alpha=0.7,
            linewidth=0,
        )
        axes.plot(drawn["hours"], drawn["held_gb"], color="black", lw=0.7, label="in use")
        axes.set(xlabel="simulated time (h)", ylabel="KV memory (GB)")
        axes.set_xlim(0, None)
        axes.set_ylim(0, None)
        figure.legend(loc="outside lower center", ncols=3)
        share = given["left_gb"] / (given["left_gb"] + given["right_gb"])
        message = f"The compute side typically gets {share.median():.0%} of the KV memory"
        head(figure, message, conditions)
    return figure


FIG6 = Figure6()
