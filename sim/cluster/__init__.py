"""Replicas as SimPy processes, colocated or disaggregated. `run_replicas` runs them."""

from bssim.sim.cluster.disaggregation import Disaggregation, KVLink
from bssim.sim.cluster.replica import Replica
from bssim.sim.cluster.run import run_replicas

__all__ = [
    "Disaggregation",
    "KVLink",
    "Replica",
    "run_replicas",
]
