"""Replicas as SimPy processes: side by side, or prefill and decode apart. Entrance: `run`."""
