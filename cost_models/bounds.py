"""Lower bounds on the makespan of a pool of requests."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower bounds in seconds; no schedule on the same engine and GPUs is faster than any."""

    ideal_s: float
    """max(Tc, Tm): perfect overlap."""
    practical_optimum_s: float
    """The engine's overlap model applied to the pool's whole compute and memory seconds."""
    critical_path_s: float
    """Steps of the longest request times the fastest possible step."""
    kv_capacity_s: float
    """Steps that KV capacity forces (KV token-steps / capacity) times the fastest step."""

    @property
    def tightest_s(self) -> float:
        """The largest of the bounds."""
        return max(self.practical_optimum_s, self.critical_path_s, self.kv_capacity_s)
