"""The result of a comparison: one record per order, the choice and the verdict."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bssim.experiments.batch.assumptions import Assumptions
from bssim.experiments.batch.serving import FileOrder

Mode = Literal["file", "run_time"]

OWN = "fcfs"
"""The order of the file itself."""
AUTO = "auto"
"""The name of the best order in `plan`."""
NEAR = 0.001
"""Orders within this share of the fastest count as equally fast."""
LEAST_GAIN = 0.005
"""An order must save this share of the time, or the verdict keeps the file's own order."""
MOST_LOSS = 0.01
"""An order may lose this share of the time in another scenario and still be chosen."""
RUN_TIME_WORTH = 0.01
"""Run-time admission must save this share over the best file, because it needs `bssim run`."""
SAMPLED_RUN_TIME_WORTH = 0.05
"""The same share if only a sample was simulated. In a sample, schedulers learn lengths at a
different pace; on 20,000 mixed requests this made `ratio` 4 % faster than it was."""


@dataclass(frozen=True, eq=False)
class OrderResult:
    """One order, simulated."""

    scheduler: str
    mode: Mode
    """``file``: a stock engine serves a file in this order; ``run_time``: bssim admits requests."""
    makespan_s: float
    throughput_tok_s: float
    sharing: float
    """Share of prompt tokens found in the KV cache."""
    share_of_bound: float
    """Tightest lower bound of the makespan, divided by the makespan."""
    speedup: float
    """Over the file's own order, in the main scenario."""
    scenarios: Mapping[str, float]
    """The speed-up in each simulated scenario; the main scenario comes first."""
    order: FileOrder | None = None
    """Rows of the pool in order; only if ``mode`` is ``file``."""
    sampled: bool = False
    """Whether only a sample of the pool was simulated; seconds are then scaled to the pool."""

    @property
    def least_speedup(self) -> float:
        """The speed-up in the worst scenario."""
        return min(self.scenarios.values())

    def as_json(self) -> dict[str, Any]:
        """Return the record as ``--json`` prints it."""
        return {
            "scheduler": self.scheduler,
            "mode": self.mode,
            "makespan_s": self.makespan_s,
            "throughput_tok_s": self.throughput_tok_s,
            "sharing": self.sharing,
            "share_of_bound": self.share_of_bound,
            "speedup": self.speedup,
            "speedup_by_lengths": dict(self.scenarios),
            "sampled": self.sampled,
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """Every order of one pool on one machine."""

    name: str
    num_requests: int
    orders: tuple[OrderResult, ...]
    """Sorted, fastest first."""
    assumed: Assumptions
    gpus: int
    price_per_gpu_hour: float | None = None
    notes: tuple[str, ...] = ()
    """What the reader or planner did that the user must know."""
    warnings: tuple[str, ...] = ()
    """What may be wrong with the input."""
    sample_requests: int | None = None
    """The number of requests in the sample, or None if the whole pool was simulated."""

    @property
    def own(self) -> OrderResult:
        """The file's own order."""
        return next(o for o in self.orders if o.scheduler == OWN and o.mode == "file")

    @property
    def best_file(self) -> OrderResult:
        """The best order for a stock engine, the file's own included.

        It is never slower than the file's own in the main scenario, and loses at most `MOST_LOSS`
        in any other scenario. Among equally fast orders, it is the one that loses least. If any
        order was simulated with the whole pool, no sampled one is chosen.
        """
        return self._best([o for o in self._certain if o.mode == "file"])

    @property
    def choice(self) -> OrderResult:
        """The best order that is worth the change.

        It saves at least `LEAST_GAIN`. A run-time order also saves at least `RUN_TIME_WORTH` over
        the best file.
        """
        best, file = self._best(self._certain), self.best_file
        if best.speedup < 1.0 + LEAST_GAIN:
            return self.own
        worth = SAMPLED_RUN_TIME_WORTH if best.sampled else RUN_TIME_WORTH
        if best.mode == "file" or best.makespan_s > (1.0 - worth) * file.makespan_s:
            return file if file.speedup >= 1.0 + LEAST_GAIN else self.own
        return best

    @property
    def _certain(self) -> list[OrderResult]:
        """The orders to choose from: all but the file's own, without sampled ones if it can be."""
        others = [o for o in self.orders if o is not self.own]
        return [o for o in others if not o.sampled] or others

    def _best(self, orders: list[OrderResult]) -> OrderResult:
        # An order without the other scenarios was too slow in the main one.
        full = len(self.own.scenarios)
        able = [
            o
            for o in orders
            if len(o.scenarios) == full
            and o.speedup > (1.0 + LEAST_GAIN if o.sampled else 1.0)
            and o.least_speedup >= 1.0 - MOST_LOSS
        ]
        if not able:
            return self.own
        fastest = max(o.speedup for o in able)
        near = [o for o in able if o.speedup >= fastest * (1.0 - NEAR)]
        return max(near, key=lambda o: o.least_speedup)

    def gpu_hours(self, order: OrderResult) -> float:
        """Return the GPU-hours of an order."""
        return self.gpus * order.makespan_s / 3600

    def saved(self, order: OrderResult) -> float | None:
        """Return the dollars that an order saves, or None without a price."""
        if self.price_per_gpu_hour is None:
            return None
        hours = self.gpu_hours(self.own) - self.gpu_hours(order)
        return hours * self.price_per_gpu_hour

    @property
    def verdict(self) -> str:
        """What to do, in one sentence."""
        choice, own = self.choice, self.own
        if choice is own:
            return "Keep your order."
        saved = self.saved(choice)
        gain = "" if saved is None else f", saving {money(saved)}"
        if saved is not None and 0 < saved < 0.005:
            gain = ", saving less than $0.01"
        how = " at run time (bssim run)" if choice.mode == "run_time" else ""
        before, after = durations(own.makespan_s, choice.makespan_s)
        if choice.sampled:
            before, after = f"about {before}", f"about {after}"
        return f"Use {choice.scheduler}{how}: {after} instead of {before}{gain}."

    @property
    def robustness(self) -> str | None:
        """How the choice fares with other output lengths, or None if there are no others."""
        own, choice = self.own, self.choice
        others = list(own.scenarios)[1:]
        if not others:
            return None
        if choice is not own:
            spread = [choice.scenarios[s] for s in others]
            held = "holds" if min(spread) >= 1.0 else "is within 1 % of your order or better"
            return (
                f"With other output lengths ({', '.join(others)}) the speed-up {held}: "
                f"{min(spread):.2f}x to {max(spread):.2f}x."
            )
        tempting = [
            o
            for o in self.orders
            if o.speedup > 1.0 + MOST_LOSS
            and (len(o.scenarios) < len(own.scenarios) or o.least_speedup < 1.0 - MOST_LOSS)
        ]
        if tempting:
            one = tempting[0]
            worst = min(one.scenarios, key=one.scenarios.__getitem__)
            return (
                f"{one.scheduler} is faster with the output lengths of scenario {own_main(own)} "
                f"({one.speedup:.2f}x) but slower with {worst} ({one.least_speedup:.2f}x)."
            )
        return "No other order saves enough to be worth the change."

    @property
    def sampling(self) -> str | None:
        """What was simulated with a sample only, or None if nothing was."""
        if self.sample_requests is None:
            return None
        whole = [o for o in self.orders if not o.sampled and o.mode == "file"]
        names = ["your order" if o.scheduler == OWN else o.scheduler for o in whole]
        rest = f" Simulated whole: {', '.join(names)}." if whole else ""
        return (
            f"~: simulated with {self.sample_requests:,} of {self.num_requests:,} requests (whole "
            f"prefix groups) and scaled.{rest}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as ``--json`` prints it."""
        choice = self.choice
        return {
            "orders": [order.as_json() for order in self.orders],
            "choice": {
                "scheduler": choice.scheduler,
                "mode": choice.mode,
                "speedup": choice.speedup,
            },
            "assumed": self.assumed.as_json(),
            "verdict": self.verdict,
            "num_requests": self.num_requests,
            "sample_requests": self.sample_requests,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


def ranked(orders: Iterable[OrderResult]) -> tuple[OrderResult, ...]:
    """Return orders, fastest first; the file's own is the first of those that take as long."""
    return tuple(sorted(orders, key=lambda o: (o.makespan_s, o.scheduler != OWN)))


def own_main(own: OrderResult) -> str:
    """Return the name of the main scenario."""
    return next(iter(own.scenarios))


def money(dollars: float) -> str:
    """Return dollars as ``$12.34`` or ``-$12.34``; what rounds to zero is ``$0.00``."""
    cents = f"{abs(dollars):,.2f}"
    sign = "-" if dollars < 0 and cents != "0.00" else ""
    return f"{sign}${cents}"


def duration(seconds: float) -> str:
    """Return seconds in a suitable unit: ``9.1 min``."""
    for scale, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * scale:
            return f"{seconds / scale:,.{0 if seconds >= 100 * scale else 1}f} {unit}"
    return f"{seconds:#.3g}".rstrip(".") + " s"


def durations(*seconds: float) -> tuple[str, ...]:
    """Return durations in one unit, with enough digits to differ: ``38 min`` and ``9 min``."""
    longest = max(seconds)
    scale, unit = next(
        (s, u)
        for s, u in ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
        if longest >= 2 * s or s == 1.0
    )
    for digits in range(4):
        shown = tuple(f"{second / scale:,.{digits}f} {unit}" for second in seconds)
        if len(set(shown)) == len(set(seconds)) and min(seconds) / scale >= 3 * 0.1**digits:
            break
    return shown
