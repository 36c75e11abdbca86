"""Replicas as SimPy processes, colocated or disaggregated. The entry point is `run`."""
