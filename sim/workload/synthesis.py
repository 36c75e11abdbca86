"""Mix sources to reach a target density and sharing, by the paper's recipe (section 6.2, A.3).

A mix has three sources: a compute-intensive one and a memory-intensive one, whose ratio sets the
density, and one with high sharing, whose share sets the sharing. The density is that of the whole
mix. The counts are solved on the drawn requests, not on means, because the tails of the output
lengths make up most of the memory time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from bssim.cost_models.density import DensityConstants, density_of_sums, token_sums
from bssim.errors import InputError, unknown_name
from bssim.sim.workload.combine import concatenate, shuffle, take
from bssim.sim.workload.request_density import pool_density
from bssim.sim.workload.sources import Source
from bssim.sim.workload.workload import Workload

DEFAULT_NUM_REQUESTS = 400_000
_SMALLEST_POOL = 20_000
"""The least number of requests drawn from a source, so that small mixes use a fair sample too."""
_LAST_CANDIDATES = 4096
"""Number of draws from which the last memory-intensive request is chosen."""


@dataclass(frozen=True, slots=True)
class MixSpec:
    """What to mix, and the targets; a source is a built-in name or the path of a trace file."""

    density: float
    """(1 - sharing) sum Comp / sum Mem of the whole mix."""
    sharing: float
    """Share of prompt tokens that are cached in a DFS order."""
    compute_source: str = "burstgpt"
    memory_source: str = "openvid"
    sharing_source: str = "mmlu"


TRACES: Mapping[str, MixSpec] = MappingProxyType(
    {
        "trace1": MixSpec(density=1.4, sharing=0.35),
        "trace2": MixSpec(density=0.9, sharing=0.35),
        "trace3": MixSpec(density=1.4, sharing=0.05),
        "trace4": MixSpec(density=0.9, sharing=0.05),
    }
)
"""The paper's four main traces."""


def trace(name: str) -> MixSpec:
    """Return the mix behind ``trace1`` .. ``trace4``.

    Raises InputError with the nearest name for any other name.
    """
    if name not in TRACES:
        raise unknown_name("trace", name, TRACES)
    return TRACES[name]


def mix(
    spec: MixSpec,
    sources: tuple[Source, Source, Source],
    *,
    num_requests: int = DEFAULT_NUM_REQUESTS,
    rng: np.random.Generator,
    name: str = "mix",
    constants: DensityConstants | None = None,
) -> Workload:
    """Mix ``num_requests`` requests of the (compute, memory, sharing) sources to meet ``spec``.

    The pool is shuffled. The last memory-intensive request is chosen from the next draws, so that
    the density is close to its target even if the mix has only a few such requests. The notes state
    the density and sharing reached. Raises InputError if no mix of the sources can reach the
    targets, and gives the range that they can reach.
    """
    unit = constants or DensityConstants()
    if num_requests < 1:
        raise InputError("num_requests", num_requests, "at least 1")
    if not 0 <= spec.sharing < 1:
        raise InputError("sharing", spec.sharing, "0 <= sharing < 1")
    if not spec.density > 0:
        raise InputError("density", spec.density, "more than 0")
    streams = rng.spawn(4)
    size = max(num_requests, _SMALLEST_POOL)
    drawn = [s.draw(size, g) for s, g in zip(sources, streams[:3], strict=True)]
    sums = _Sums.of(drawn)
    needs_memory = _check_reachable(spec, sources, sums, unit)
    counts, last = _solve(spec, sums, num_requests, unit, needs_memory=needs_memory)

    rows = [np.arange(k) for k in counts]
    if counts[1]:
        rows[1][-1] = last
    parts = [replace(take(w, r), notes=()) for w, r in zip(drawn, rows, strict=True) if len(r)]
    pool = shuffle(concatenate(parts, name=name), streams[3])
    used = [s for s, r in zip(sources, rows, strict=True) if len(r)]
    shares = ", ".join(f"{len(p):,} {s.name}" for s, p in zip(used, parts, strict=True))
    return replace(
        pool,
        notes=(
            f"mix of {shares}: density {pool_density(pool, unit):.4g} (target {spec.density:g}), "
            f"sharing {pool.sharing_max:.4f} (target {spec.sharing:g})",
            *(note for s, p in zip(used, parts, strict=True) for note in s.report(p)),
        ),
    )


@dataclass(frozen=True)
class _Sums:
    """Running sums over the draws of the three sources, each of shape (3, draws + 1)."""

    prompt: npt.NDArray[np.float64]
    cached: npt.NDArray[np.float64]
    computed: npt.NDArray[np.float64]
    read: npt.NDArray[np.float64]

    @classmethod
    def of(cls, drawn: list[Workload]) -> "_Sums":
        # Hits in pool order are exact for every leading part of the draws, because trees do not
        # overlap and the hit of a request depends only on earlier draws.
        work = [token_sums(w.prompt_tokens, w.output_tokens) for w in drawn]
        return cls(
            prompt=_running([w.prompt_tokens for w in drawn]),
            cached=_running([w.max_cached_tokens for w in drawn]),
            computed=_running([c for c, _ in work]),
            read=_running([r for _, r in work]),
        )

    def sharing(self, counts: tuple[int, int, int]) -> float:
        return _total(self.cached, counts) / max(_total(self.prompt, counts), 1.0)


def _running(
    columns: list[npt.NDArray[np.int64]] | list[npt.NDArray[np.float64]],
) -> npt.NDArray[np.float64]:
    return np.array([np.concatenate(([0.0], np.cumsum(c, dtype=np.float64))) for c in columns])


def _total(running: npt.NDArray[np.float64], counts: tuple[int, int, int]) -> float:
    return float(sum(running[i, k] for i, k in enumerate(counts)))


def _check_reachable(
    spec: MixSpec,
    sources: tuple[Source, Source, Source],
    sums: _Sums,
    unit: DensityConstants,
) -> bool:
    """Raise InputError unless some proportions of the sources meet the target.

    Return whether the mix needs the memory source. With per-request means, the target sharing makes
    the part of the sharing source a linear function of the part of the memory source. The density
    falls along this line, so its two ends give the reachable range.
    """
    means = {k: v[:, -1] / (v.shape[1] - 1) for k, v in vars(sums).items()}
    share = means["cached"] / means["prompt"]
    names = [s.name for s in sources]
    s, t = spec.sharing, spec.density
    if share[2] <= share[0]:
        raise InputError(
            "sharing_source",
            f"{names[2]} with sharing {share[2]:.3f}",
            f"more than that of compute_source {names[0]}, {share[0]:.3f}",
        )
    if not min(share[0], share[1]) <= s <= share[2]:
        raise InputError(
            "sharing",
            f"{s:g}",
            (
                f"{min(share[0], share[1]):.3f} to {share[2]:.3f}, the range of {names[0]} "
                f"({share[0]:.3f}), {names[1]} ({share[1]:.3f}) "
                f"and {names[2]} ({share[2]:.3f})"
            ),
        )
    # excess[i]: cached tokens of a request of source i minus s times its prompt; must sum to zero.
    excess = means["cached"] - s * means["prompt"]

    def sharing_part(m: float) -> float:
        return float(-(excess[0] + m * (excess[1] - excess[0])) / (excess[2] - excess[0]))

    def density_at(m: float) -> float:
        part = np.array([1 - m - sharing_part(m), m, sharing_part(m)])
        return density_of_sums(
            s, float(part @ means["computed"]), float(part @ means["read"]), unit
        )

    feasible = [m for m in np.linspace(0, 1, 10_001) if -1e-9 <= sharing_part(m) <= 1 - m + 1e-9]
    if not feasible:
        raise InputError("sharing", f"{s:g}", f"a value that {', '.join(names)} can reach")
    low, high = density_at(feasible[-1]), density_at(feasible[0])
    if low > high:
        raise InputError(
            "memory_source",
            f"{names[1]}, which raises the density to {low:.3g}",
            f"a source with a lower density than {names[0]}",
        )
    if not low <= t <= high:
        raise InputError(
            "density",
            f"{t:g}",
            f"{low:.3g} to {high:.3g}, the range of {', '.join(names)} at sharing {s:g}",
        )
    return feasible[0] > 0 or t < high


def _solve(
    spec: MixSpec, sums: _Sums, n: int, unit: DensityConstants, *, needs_memory: bool
) -> tuple[tuple[int, int, int], int]:
    """Return the counts (compute, memory, sharing) and the draw of the last memory request."""

    computes, reads = np.diff(sums.computed[1]), np.diff(sums.read[1])

    def with_memory(m: int) -> tuple[int, int, int]:
        k = _first_true(0, n - m, lambda k: sums.sharing((n - m - k, m, k)) >= spec.sharing)
        return n - m - k, m, k

    def density(counts: tuple[int, int, int]) -> float:
        computed, read = _total(sums.computed, counts), _total(sums.read, counts)
        return density_of_sums(sums.sharing(counts), computed, read, unit)

    memory = _first_true(0, n, lambda m: density(with_memory(m)) <= spec.density)
    if not needs_memory and memory == 0:
        return with_memory(0), 0
    # One request carries a few per mille of the density, or much more in a small mix: take the
    # count on either side of the target, and of the next draws the last request that fits best.
    best = (float("inf"), with_memory(0), 0)
    for m in range(max(1, memory - 1), max(1, memory) + 1):
        counts, own = with_memory(m), m - 1
        nearby = slice(own, own + _LAST_CANDIDATES)
        reached = density_of_sums(
            sums.sharing(counts),
            _total(sums.computed, counts) + computes[nearby] - computes[own],
            _total(sums.read, counts) + reads[nearby] - reads[own],
            unit,
        )
        miss = np.abs(reached - spec.density)
        i = int(np.argmin(miss))
        best = min(best, (float(miss[i]), counts, own + i))
    return best[1], best[2]


def _first_true(low: int, high: int, test: Callable[[int], bool]) -> int:
    """Return the smallest k in low..high for which the monotone ``test`` holds, else ``high``."""
    while low < high:
        middle = (low + high) // 2
        if test(middle):
            high = middle
        else:
            low = middle + 1
    return low
