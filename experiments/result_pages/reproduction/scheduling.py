"""The cost of scheduling: planning a pool, and the policy's calls in a step."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bssim.cost_models.hardware import load_hardware
from bssim.cost_models.llm import load_llm
from bssim.cost_models.registry import make_cost_model
from bssim.experiments.result_pages.reproduction.four_traces import BLENDSERVE, COST_MODEL, RATIO
from bssim.experiments.result_pages.reproduction.intercepted import Calls, InterceptedScheduler
from bssim.experiments.result_pages.study import Chapter, Claim
from bssim.experiments.sweeps import Results, WorkloadRef, build_workload
from bssim.sim.engine import AdmissionPolicy, EngineView, load_preset
from bssim.sim.lengths import make_estimator
from bssim.sim.schedulers import make_scheduler
from bssim.sim.schedulers.blendserve import SHARING_KEPT, UnitSeconds, blend
from bssim.sim.simulate import simulate
from bssim.sim.workload import DEFAULT_NUM_REQUESTS, Workload, make_workload

PAPER_MEAN_MS, PAPER_P99_MS = 0.08, 0.23
TRACE = "trace1"


@dataclass(frozen=True, slots=True)
class TimedPool:
    """A pool whose steps are timed: a few thousand steps with requests waiting."""

    name: str
    """Of a workload, or `ANSWERS`."""
    requests: int
    hardware: str = "a100-80gb"
    max_num_seqs: int = 1024

    def workload(self) -> Workload:
        """Build the requests."""
        if self.name == ANSWERS:
            return answers(self.requests)
        return build_workload(WorkloadRef(self.name, self.requests, seed=0))


ANSWERS = "answers"
"""Nine tenths short questions with answers of a thousand tokens, which read more than they compute
on a GPU with room for all of them: as many requests run at once as anywhere."""
STEP_POOLS = (
    TimedPool(TRACE, 20_000),
    TimedPool("sharegpt", 5_000),
    TimedPool(ANSWERS, 12_000, "b200", 1536),
)
POLICY_CALLS = (
    "offer",
    "token_limit",
    "blocked",
    "all_admitted",
    "prefilled",
    "finished",
    "all_finished",
    "preempted",
)
"""What the engine calls besides `begin_step`."""

TEXT = """
These are CPU times of one Python thread on the machine that made this page. They are not part of
any result and differ between runs and machines, so the claims have one digit only.

Planning: sort, splits, second sort and merge over {requests:,} requests of {trace}, with the
prefix tree given (`docs/architecture.md` says how long that takes). The paper reports "several
minutes" for 400,000 requests, tree included.

Run time: the sum of all calls of the policy in a step (`begin_step` to `finished`), for every
step, on {pools}. Only steps that begin with waiting requests count. The time of the clock itself,
less than a microsecond per call, is included. Single steps take far longer (up to {worst} here),
when BlendServe plans again with new lengths or `ratio` fits its survival curves again. The rest
of `ratio`'s time is its look at the KV memory that the memory-intensive requests will hold, which
grows with their number. Most of them run on `{crowded}`, short questions with answers of a
thousand tokens on a B200: there `ratio` has a median of {median}, and the median step takes
{step}.
"""


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds of a policy's calls in each step of a run that began with requests waiting."""

    milliseconds: npt.NDArray[np.float64]
    """Shape (steps,)."""
    running: float
    """Mean number of running requests in them."""
    step_ms: float
    """Median seconds that the engine took for one of them."""


class Scheduling:
    """Planning and run-time cost of BlendServe and `ratio`."""

    name = "scheduling"
    title = "The cost of scheduling"

    def __init__(
        self,
        num_requests: int = DEFAULT_NUM_REQUESTS,
        step_pools: Sequence[TimedPool] = STEP_POOLS,
    ) -> None:
        """``num_requests`` are planned, the steps of ``step_pools`` timed."""
        self.num_requests = num_requests
        self.step_pools = step_pools

    def sweeps(self, full: bool) -> Sequence[str]:
        """Return nothing: this study times its own runs."""
        return ()

    def chapter(self, results: Mapping[str, Results], full: bool) -> Chapter:
        """See `Study.chapter`."""
        claims = [
            Claim(
                "scheduling.planning_s",
                f"planning {self.num_requests:,} requests of {TRACE} (s, CPU)",
                "several minutes",
                _one_digit(planning_seconds(self.num_requests)),
                "tree given; the paper's includes building it",
            )
        ]
        worst, median, step = 0.0, 0.0, 0.0
        for scheduler in (BLENDSERVE, RATIO):
            for pool in self.step_pools:
                times = step_times(scheduler, pool)
                worst = max(worst, float(times.milliseconds.max()))
                median, step = float(np.median(times.milliseconds)), times.step_ms
                note = f"about {_one_digit(times.running):,.0f} requests running"
                for key, paper, value in (
                    ("mean", PAPER_MEAN_MS, times.milliseconds.mean()),
                    ("p99", PAPER_P99_MS, np.quantile(times.milliseconds, 0.99)),
                ):
                    claims.append(
                        Claim(
                            f"scheduling.{scheduler}.{pool.name}.{key}_ms",
                            f"{scheduler} on {pool.name}: policy calls in a step, {key} (ms, CPU)",
                            paper,
                            _one_digit(float(value)),
                            note,
                        )
                    )
        text = TEXT.format(
            requests=self.num_requests,
            trace=TRACE,
            crowded=self.step_pools[-1].name,
            pools=", ".join(f"{p.requests:,} requests of {p.name}" for p in self.step_pools),
            worst=f"{_one_digit(worst):,.0f} ms",
            # The last row is `ratio` on the last pool.
            median=f"{_one_digit(median):g} ms",
            step=f"{_one_digit(step):g} ms",
        )
        return Chapter(claims, text)


def planning_seconds(num_requests: int) -> float:
    """Return the CPU seconds of BlendServe's plan over a whole trace, after its sample."""
    pool = build_workload(WorkloadRef(TRACE, num_requests, seed=0))
    llm, hardware = load_llm("llama-3-8b"), load_hardware("a100-80gb")
    unit = UnitSeconds.of(make_cost_model(COST_MODEL, llm, hardware))
    tokens = (1 - SHARING_KEPT) * float(pool.max_cached_tokens.sum())
    began = time.thread_time()
    estimates = make_estimator("sampled", pool, np.random.default_rng(0)).final()
    blend(pool, estimates, unit, np.ones(len(pool), np.bool_), tokens)
    return time.thread_time() - began


def answers(count: int) -> Workload:
    """Return the pool `ANSWERS`; the draws are always the same."""
    rng = np.random.default_rng(0)
    prompt_only = rng.random(count) < 0.1
    answer = np.ceil(rng.lognormal(6.7, 0.5, count))
    return make_workload(
        ANSWERS,
        np.where(prompt_only, rng.integers(300, 900, count), rng.integers(32, 97, count)),
        np.where(prompt_only, rng.integers(2, 11, count), answer).astype(np.int64),
    )


def step_times(scheduler: str, pool: TimedPool) -> StepTimes:
    """Simulate a pool one step at a time and time the policy's calls in each."""
    llm, hardware = load_llm("llama-3-8b"), load_hardware(pool.hardware)
    log = StepLog()
    result = simulate(
        pool.workload(),
        scheduler=InterceptedScheduler(
            make_scheduler(scheduler), lambda policy: timed_calls(policy, log)
        ),
        llm=llm,
        hardware=hardware,
        engine=load_preset("nanoflow").with_settings({"max_num_seqs": pool.max_num_seqs}),
        cost_model=make_cost_model(COST_MODEL, llm, hardware),
        output_lengths="survival" if scheduler == RATIO else "sampled",
        record_timeline=True,
        on_step=lambda row: None,  # makes the engine take one step at a time
    )
    (timeline,) = result.timelines
    busy = np.array(log.waiting)
    steps = np.array(log.steps)[busy]
    return StepTimes(
        np.array(log.seconds)[busy] * 1e3,
        float(timeline.running[steps].mean()),
        float(np.median(timeline.step_s[steps])) * 1e3,
    )


@dataclass(frozen=True, slots=True)
class StepLog:
    """What `timed_calls` notes, one entry per step in which the policy is asked."""

    seconds: list[float] = field(default_factory=list)
    """Sum of the policy's calls."""
    waiting: list[bool] = field(default_factory=list)
    """Whether requests waited when the step began."""
    steps: list[int] = field(default_factory=list)
    """Number of the step."""


def timed_calls(policy: AdmissionPolicy, log: StepLog) -> Calls:
    """Return the policy's calls, timed into ``log``."""
    clock, seconds = time.thread_time, log.seconds

    def begin_step(engine: EngineView) -> None:
        log.waiting.append(policy.num_waiting > 0)
        log.steps.append(engine.step)
        began = clock()
        policy.begin_step(engine)
        seconds.append(clock() - began)

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any) -> Any:
            began = clock()
            found = call(*arguments)
            seconds[-1] += clock() - began
            return found

        return wrapper

    return {"begin_step": begin_step} | {
        name: timed(getattr(policy, name)) for name in POLICY_CALLS
    }


def _one_digit(value: float) -> float:
    """Round to one significant digit, because further digits change with every run."""
    if value == 0.0:
        return 0.0
    return round(value, -math.floor(math.log10(abs(value))))


SCHEDULING = Scheduling()
