"""The simulator: workloads, schedulers, KV cache and the event-driven engine."""
