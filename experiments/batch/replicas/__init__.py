"""`bssim run --dp N`: one Ray actor with one vLLM engine per replica, one results file."""

from bssim.experiments.batch.replicas.driver import run_on_replicas

__all__ = ["run_on_replicas"]
